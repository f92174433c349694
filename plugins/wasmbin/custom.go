package wasmbin

import (
	"bytes"
	"fmt"
)

// Custom returns the content of the custom section of that name, nil if there
// is none, and the file without it. Two of them are an error. It looks at
// sections' sizes and custom sections' names only.
func Custom(file []byte, name string) (content, rest []byte, err error) {
	if !bytes.HasPrefix(file, header) {
		return nil, nil, refuse("not a WebAssembly 1 binary: want it to begin with %q", header)
	}
	r := &reader{b: file, at: len(header)}
	from, to := 0, 0
	for r.at < len(file) {
		start := r.at
		id := r.byte()
		body := r.bytes(int(r.u32()))
		if r.err != nil {
			return nil, nil, fmt.Errorf("section %d at byte %d: %w", id, start, r.err)
		}
		if id != SectionCustom {
			continue
		}
		in := &reader{b: body}
		if in.name(len(body)) != name || in.err != nil {
			continue
		}
		if to > 0 {
			return nil, nil, refuse("two custom sections %q", name)
		}
		content, from, to = body[in.at:], start, r.at
	}
	if to == 0 {
		return nil, file, nil
	}
	if content == nil {
		content = []byte{}
	}
	return content, append(file[:from:from], file[to:]...), nil
}

// AppendCustom returns the file with a custom section added at its end.
func AppendCustom(file []byte, name string, content []byte) []byte {
	body := append(appendName(nil, name), content...)
	out := append(append([]byte(nil), file...), SectionCustom)
	return append(appendLength(out, len(body)), body...)
}
