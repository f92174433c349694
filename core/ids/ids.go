// Package ids makes the names of messages, sessions and erasures.
package ids

import "github.com/google/uuid"

// New returns a UUIDv7 (RFC 9562 §5.7): nobody else has it, and of two the later
// one sorts behind the other, as far as the clocks agree that they were made by.
// Those of one process sort in the order they were made in. Any goroutine may
// call it.
func New() string {
	id, err := uuid.NewV7()
	if err != nil { // the system's randomness has failed; nothing is safe then
		panic("ids: no randomness: " + err.Error())
	}
	return id.String()
}
