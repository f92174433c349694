package absent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Note is an Entry as it is kept outside of Redis, in an archive.
type Note struct {
	Entry
	Dead *Death `json:"dead,omitempty"` // nil while it is to be delivered
}

// Death is why an Entry is a dead letter.
type Death struct {
	Reason string    `json:"reason"`
	Tries  int       `json:"tries"`
	Died   time.Time `json:"died"`
}

const (
	maxDeath = 1024 // bytes of a reason; a worker keeps 200
	// MaxNote bounds an encoded note. JSON may write a byte as six.
	MaxNote = 6*(maxText+maxDeath) + 8<<10
)

// Check says what of a note is beyond its bounds, and what is missing. Whoever can
// write to Redis can have put it there.
func (n *Note) Check() error {
	if d := n.Dead; d != nil && (len(d.Reason) > maxDeath || d.Tries < 0 || d.Died.Year() < 0 || d.Died.Year() > 9999) {
		return errors.New("why it was given up is out of range")
	}
	return n.check()
}

// AppendNote encodes a note after b, if Check says nothing.
func AppendNote(b []byte, n *Note) ([]byte, error) {
	var text []byte
	err := n.Check()
	if err == nil {
		text, err = json.Marshal(n)
	}
	if err == nil && len(text) > MaxNote {
		err = fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), MaxNote)
	}
	if err != nil {
		return b, fmt.Errorf("encode a message for somebody absent: %w", err)
	}
	return append(b, text...), nil
}

// ParseNote reads what AppendNote wrote.
func ParseNote(b []byte) (n Note, err error) {
	if len(b) > MaxNote {
		return n, fmt.Errorf("it has %d bytes, at most %d are allowed", len(b), MaxNote)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&n); err != nil {
		return Note{}, fmt.Errorf("read its JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Note{}, errors.New("something follows its JSON")
	}
	n.Texted = n.Text != ""
	if err := n.Check(); err != nil {
		return Note{}, err
	}
	return n, nil
}
