package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// setKey returns a JSON object with one member set to value, and everything
// else as its author wrote it: a new member goes first, one that is there
// keeps its place.
func setKey(object []byte, key string, value any) ([]byte, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(object))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil, fmt.Errorf("set %q: not a JSON object", key)
	}
	first := int(d.InputOffset()) // behind the brace
	empty := !d.More()
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("set %q: %w", key, err)
		}
		var old json.RawMessage
		if err := d.Decode(&old); err != nil {
			return nil, fmt.Errorf("set %q: %w", key, err)
		}
		if end := int(d.InputOffset()); name == json.Token(key) {
			return join(object[:end-len(old)], b, object[end:]), nil
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("set %q: %w", key, err)
	}
	member := join([]byte("\n  "), []byte(fmt.Sprintf("%q: ", key)), b)
	if empty {
		member = append(member, '\n')
	} else {
		member = append(member, ',')
	}
	rest := object[first:]
	if !empty && len(rest) > 0 && rest[0] != '\n' && rest[0] != '\r' {
		member = append(member, "\n  "...)
		rest = bytes.TrimLeft(rest, " \t")
	}
	return join(object[:first], member, rest), nil
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
