package gitsync

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"parley/policy"
)

// packed is one object of a pack made by hand (gitformat-pack).
type packed struct {
	kind   plumbing.ObjectType
	base   plumbing.Hash // of a delta
	length uint64        // declared; 0 for that of body
	body   []byte
}

func packOf(t *testing.T, objects ...packed) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("PACK")
	_ = binary.Write(&b, binary.BigEndian, []uint32{2, uint32(len(objects))})
	for _, o := range objects {
		n := o.length
		if n == 0 {
			n = uint64(len(o.body))
		}
		first := byte(o.kind)<<4 | byte(n&15)
		for n >>= 4; n > 0; n >>= 7 {
			b.WriteByte(first | 0x80)
			first = byte(n & 127)
		}
		b.WriteByte(first)
		if o.kind == plumbing.REFDeltaObject {
			b.Write(o.base[:])
		}
		z := zlib.NewWriter(&b)
		if _, err := z.Write(o.body); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha1.Sum(b.Bytes())
	b.Write(sum[:])
	return b.Bytes()
}

// delta is a delta that declares its two sizes and copies nothing.
func delta(base, made uint64) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, base), made), 1, 'x')
}

// A few bytes of a pack can stand for more than the machine has.
func TestCheckPack(t *testing.T) {
	blob := packed{kind: plumbing.BlobObject, body: []byte("package parley")}
	ref := func(body []byte) packed {
		return packed{kind: plumbing.REFDeltaObject, base: plumbing.NewHash(strings.Repeat("a", 40)), body: body}
	}
	for _, c := range []struct {
		name string
		pack []byte
		want string // "" for a pack that may pass
	}{
		{"a blob", packOf(t, blob), ""},
		{"a delta", packOf(t, blob, ref(delta(14, 1))), ""},
		{"a blob that says it is large", packOf(t, packed{kind: plumbing.BlobObject, length: maxPackInflated + 1, body: []byte("x")}), "inflates to more"},
		{"a delta that makes much", packOf(t, blob, ref(delta(14, maxPackInflated+1))), "inflates to more"},
		{"deltas that make much together", packOf(t, blob, ref(delta(14, maxPackInflated/2)), ref(delta(14, maxPackInflated/2))), "inflates to more"},
		{"a delta whose size is no number", packOf(t, blob, ref(delta(14, 1<<63))), "inflates to more"},
		{"a delta without sizes", packOf(t, blob, ref([]byte{0x80})), "invalid delta"},
		{"no pack", []byte("PACK"), "read pack"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkPack(c.pack, maxPackObjects, maxPackInflated)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v, want nil", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
			var problems policy.Problems
			if strings.Contains(c.want, "inflates") && !errors.As(err, &problems) {
				t.Errorf("got %T, want Problems: the commit is at fault, so it is not tried again", err)
			}
		})
	}
}

func FuzzCheckPack(f *testing.F) {
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x3ex"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = checkPack(b, maxPackObjects, maxPackInflated) // whatever the bytes are, it returns
	})
}
