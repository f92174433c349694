package signers

import (
	"bytes"
	"fmt"
)

// SplitCommit takes the signature out of a commit as git stores it
// (gitformat-signature): the payload is what was signed, signature is "" when
// there is none.
func SplitCommit(raw []byte) (payload []byte, signature string, err error) {
	header, body := raw, []byte(nil)
	if end := bytes.Index(raw, []byte("\n\n")); end >= 0 {
		header, body = raw[:end+1], raw[end+1:]
	}
	payload = make([]byte, 0, len(raw))
	var sig []byte
	found, within, dropped := false, false, false
	for line := range bytes.Lines(header) {
		key, value, _ := bytes.Cut(line, []byte(" "))
		switch {
		case line[0] == ' ' && within:
			sig = append(sig, line[1:]...)
			continue
		case line[0] == ' ' && dropped:
			continue
		case line[0] == ' ':
		default:
			within, dropped = string(key) == "gpgsig", string(key) == "gpgsig-sha256"
			if within && found {
				return nil, "", fmt.Errorf("%w: it carries more than one", ErrMalformed)
			}
			if within {
				found, sig = true, append(sig, value...)
			}
			if within || dropped { // the one of the other hash is not covered either
				continue
			}
		}
		payload = append(payload, line...)
	}
	return append(payload, body...), string(sig), nil
}

// SplitTag takes the signature off the end of an annotated tag.
func SplitTag(raw []byte) (payload []byte, signature string) {
	at := len(raw)
	for pos := 0; pos < len(raw); {
		line := raw[pos:]
		if bytes.HasPrefix(line, []byte(sshBegin)) || bytes.HasPrefix(line, []byte(pgpBegin)) || bytes.HasPrefix(line, []byte("-----BEGIN SIGNED MESSAGE-----")) {
			at = pos // the last one counts, as for git
		}
		eol := bytes.IndexByte(line, '\n')
		if eol < 0 {
			break
		}
		pos += eol + 1
	}
	return raw[:at], string(raw[at:])
}
