package redis

import (
	"context"
	"time"

	"parley/core/chat"
)

// ForgetAfter sets how long consumers without entries are remembered.
func (q *Queue) ForgetAfter(d time.Duration) { q.forget = d }

// Strip takes texts out of a room's outbox.
func (c *Carrier) Strip(ctx context.Context, room chat.RoomID, erased func(chat.MessageID, chat.UserID) bool) error {
	return c.strip(ctx, room, erased)
}
