package moderation

import (
	"context"
)

// Stage runs the plugins of a room over a message. Any goroutine may use it.
type Stage struct {
	source Source
}

// Judge lets the plugins decide on m. only restricts them by name: nil means
// every plugin that wants the room and kind, an empty list none.
func (s *Stage) Judge(ctx context.Context, m *Message, only []string) (Result, error) {
	return Result{Text: m.Text}, ctx.Err()
}
