package wire

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// inflate reads one unmasked text frame as RFC 6455 and RFC 7692 say.
func inflate(t *testing.T, b []byte) (payload []byte, compressed bool) {
	t.Helper()
	if b[0]&^rsv1 != finText {
		t.Fatalf("got first byte %#x", b[0])
	}
	n, at := int(b[1]), 2
	switch n {
	case 126:
		n, at = int(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		n, at = int(binary.BigEndian.Uint64(b[2:])), 10
	}
	if len(b) != at+n {
		t.Fatalf("got %d bytes for a payload of %d", len(b), n)
	}
	if b[0]&rsv1 == 0 {
		return b[at:], false
	}
	out, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(b[at:]), strings.NewReader(deflateTail+"\x01\x00\x00\xff\xff"))))
	if err != nil {
		t.Fatal(err)
	}
	return out, true
}

func TestDeflateIsTheSameMessage(t *testing.T) {
	random := make([]byte, 3000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte('!' + r.IntN(90))
	}
	for name, tt := range map[string]struct {
		text    string
		smaller bool
	}{
		"nothing to gain": {"x", false},
		"a short one":     {strings.Repeat("na ", 40), true},
		"a long one":      {strings.Repeat("all work and no play ", 500), true},
		"above 64 KiB":    {strings.Repeat(string(random), 60), true},
	} {
		f := Encode(ErrorEvent{Type: "error", Text: tt.text})
		for range 2 { // the second with a used compressor
			got, compressed := inflate(t, f.Deflate())
			if compressed != tt.smaller || !bytes.Equal(got, f.Line()) {
				t.Errorf("%s: got %d bytes, compressed %v, want the message of %d", name, len(got), compressed, len(f.Line()))
			}
		}
	}
}

func TestFormsOfAFrame(t *testing.T) {
	small, large := Encode(ErrorEvent{Type: "error", Text: strings.Repeat("a", 100)}), Encode(ErrorEvent{Type: "error", Text: strings.Repeat("a", 2000)})
	for _, f := range []Frame{small, large} {
		if !bytes.Equal(f.Bytes(FormLine), f.Line()) || !bytes.Equal(f.Bytes(FormWebSocket), f.WebSocket()) {
			t.Error("the line or the WebSocket frame is another")
		}
	}
	if !bytes.Equal(small.Bytes(FormDeflate), small.WebSocket()) {
		t.Error("a small answer was compressed")
	}
	if b := large.Bytes(FormDeflate); len(b) > 200 {
		t.Errorf("got %d bytes for 2,000 times the same letter", len(b))
	}
}

func TestDeflateFromManyGoroutines(t *testing.T) {
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			f := Encode(ErrorEvent{Type: "error", Text: strings.Repeat(string(rune('a'+i)), 500)})
			for range 50 {
				if got, _ := inflate(t, f.Deflate()); !bytes.Equal(got, f.Line()) {
					t.Error("the message is another")
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkDeflate(b *testing.B) {
	f := Encode(ErrorEvent{Type: "error", Text: strings.Repeat("a message as people write them, more or less; ", 5)})
	b.ReportAllocs()
	for b.Loop() {
		f.Deflate()
	}
}
