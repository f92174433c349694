package chat

import "github.com/google/uuid"

// ServerUser is who the log names as author of what the server did by itself.
const ServerUser UserID = "parley"

// NewID returns a new ID for a message, a session or an erasure: a UUIDv7 (RFC
// 9562 §5.7), so that of two the later one sorts behind the other, as far as the
// clocks agree that they were made by.
func NewID() string {
	id, err := uuid.NewV7()
	if err != nil { // the system's randomness has failed; nothing is safe then
		panic("chat: no randomness: " + err.Error())
	}
	return id.String()
}
