package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// parseFrame reads one unmasked frame as RFC 6455 §5.2 draws it.
func parseFrame(b []byte) (opcode byte, payload []byte, err error) {
	if len(b) < 2 {
		return 0, nil, fmt.Errorf("frame of %d bytes", len(b))
	}
	if b[0]&0x80 == 0 || b[0]&0x70 != 0 || b[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("FIN not set, or RSV or MASK set: %x %x", b[0], b[1])
	}
	n, at := uint64(b[1]), 2
	width := map[uint64]int{126: 2, 127: 8}[n]
	if width > 0 {
		n = 0
		for _, c := range b[2 : 2+width] {
			n = n<<8 | uint64(c)
		}
		at += width
		// "the minimal number of bytes MUST be used to encode the length"
		if width == 2 && n < 126 || width == 8 && n <= 65535 {
			return 0, nil, fmt.Errorf("length %d in %d bytes", n, width)
		}
	}
	if uint64(len(b)-at) != n {
		return 0, nil, fmt.Errorf("header says %d bytes, %d follow", n, len(b)-at)
	}
	return b[0] & 0x0f, b[at:], nil
}

// checkFrame makes a frame whose payload, the newline included, has n bytes
// (as near as an event can come) and reads it back.
func checkFrame(t *testing.T, n int) {
	t.Helper()
	e := &journal.Entry{Seq: 1, ID: "i", Kind: journal.KindMessage}
	base := len(wire.EncodeEntry("r", e).Line())
	const member = len(`,"text":""`)
	if n > base+member {
		e.Text = strings.Repeat("x", n-base-member)
		base = n
	}
	fr := wire.EncodeEntry("r", e)
	op, payload, err := parseFrame(fr.WebSocket())
	if err != nil {
		t.Fatalf("payload of %d bytes: %v", n, err)
	}
	if op != 1 || len(payload) != base || !bytes.Equal(payload, fr.Line()) {
		t.Errorf("got opcode %d and %d bytes, want 1 and %d, the line", op, len(payload), base)
	}
	if fr.Len() != len(fr.WebSocket()) || !json.Valid(fr.JSON()) || string(fr.JSON())+"\n" != string(fr.Line()) {
		t.Errorf("payload of %d bytes: the three views disagree", n)
	}
}

func TestFrameSizes(t *testing.T) {
	for n := 0; n <= 70_000; n++ {
		if n > 1000 && (n < 65_400 || n > 65_600) && n%499 != 0 {
			continue // every size around the boundaries, a sample between
		}
		checkFrame(t, n)
	}
}

func TestEncodeSmallFrames(t *testing.T) {
	fr := wire.Encode(wire.PingEvent{Type: wire.Ping})
	if got, want := string(fr.WebSocket()), "\x81\x10{\"type\":\"ping\"}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestControlFrames(t *testing.T) {
	long := strings.Repeat("é", 100) // 200 bytes
	for name, tc := range map[string]struct {
		frame []byte
		op    byte
		want  string
	}{
		"ping":         {wire.ControlPing([]byte("7")), 9, "7"},
		"empty ping":   {wire.ControlPing(nil), 9, ""},
		"pong":         {wire.ControlPong([]byte("7")), 10, "7"},
		"long ping":    {wire.ControlPing([]byte(long)), 9, long[:125]},
		"close":        {wire.ControlClose(wire.CloseSlow, "slow_consumer"), 8, "\x11\x95slow_consumer"},
		"close normal": {wire.ControlClose(wire.CloseNormal, ""), 8, "\x03\xe8"},
		"close cut":    {wire.ControlClose(wire.CloseRestart, long), 8, "\x03\xf4" + long[:122]}, // no half rune
	} {
		t.Run(name, func(t *testing.T) {
			op, payload, err := parseFrame(tc.frame)
			if err != nil {
				t.Fatal(err)
			}
			if op != tc.op || string(payload) != tc.want {
				t.Errorf("got opcode %d %q, want %d %q", op, payload, tc.op, tc.want)
			}
			if len(payload) > wire.MaxControl {
				t.Errorf("payload of %d bytes, at most %d are allowed", len(payload), wire.MaxControl)
			}
			if op == 8 && !utf8.Valid(payload[2:]) {
				t.Errorf("reason %q is not UTF-8", payload[2:])
			}
		})
	}
}

func TestReconnect(t *testing.T) {
	for code, want := range map[wire.CloseCode]bool{
		wire.CloseNormal: false, 1001: true, wire.CloseProtocol: false, wire.CloseBinary: false,
		1006: true, wire.CloseUTF8: false, wire.CloseTooBig: false, wire.CloseInternal: true,
		wire.CloseRestart: true, wire.CloseUnauthorized: false, wire.CloseDenied: false,
		wire.CloseAbuse: false, wire.CloseHandshake: true, 4499: false, 4500: true,
		wire.CloseSlow: true, wire.CloseNoPong: true, wire.CloseTooMany: true, 4999: true, 5000: false,
	} {
		if got := code.Reconnect(); got != want {
			t.Errorf("%d: got %v, want %v", code, got, want)
		}
	}
}

// TestEncodeFault: an event that cannot be encoded becomes an error a client
// understands, never a broken frame.
func TestEncodeFault(t *testing.T) {
	fr := wire.Encode(wire.LeftEvent{Type: wire.Left, Room: "\xff"})
	var ev wire.ErrorEvent
	if err := json.Unmarshal(fr.JSON(), &ev); err != nil || ev.Code != chat.CodeInternal {
		t.Errorf("got %s, %v", fr.JSON(), err)
	}
}

// TestEventOfBadChange: a state value that is not JSON is shown as text.
func TestEventOfBadChange(t *testing.T) {
	fr := wire.EncodeEntry("lobby", &journal.Entry{Seq: 1, ID: "i", Kind: journal.KindRole,
		Changes: []journal.Change{{Key: "k", Value: []byte("{broken")}, {Key: "empty", Value: []byte(`""`)}}})
	const want = `{"type":"role","room":"lobby","seq":1,"id":"i","ts":0,"changes":[{"key":"k","value":"\"{broken\""},{"key":"empty","value":""}]}`
	if got := string(fr.JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
