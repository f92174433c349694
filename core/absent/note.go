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

const maxDeath = 1024 // bytes of a reason; a worker keeps 200

// AppendNote encodes a note after b.
func AppendNote(b []byte, n *Note) ([]byte, error) {
	text, err := json.Marshal(n)
	if err == nil && len(text) > maxParcel {
		err = fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), maxParcel)
	}
	if err != nil {
		return b, fmt.Errorf("encode a message for somebody absent: %w", err)
	}
	return append(b, text...), nil
}

// ParseNote reads what AppendNote wrote.
func ParseNote(b []byte) (n Note, err error) {
	if len(b) > maxParcel {
		return n, fmt.Errorf("it has %d bytes, at most %d are allowed", len(b), maxParcel)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&n); err != nil {
		return Note{}, fmt.Errorf("read its JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Note{}, errors.New("something follows its JSON")
	}
	if n.Dead != nil && (len(n.Dead.Reason) > maxDeath || n.Dead.Tries < 0) {
		return Note{}, errors.New("why it was given up is out of range")
	}
	n.Texted = n.Text != ""
	if err := n.check(); err != nil {
		return Note{}, err
	}
	return n, nil
}
