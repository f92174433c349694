package load

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestNextFrame(t *testing.T) {
	long := strings.Repeat("x", 300)
	frame := func(head string, payload string) []byte { return []byte(head + payload) }
	for _, c := range []struct {
		name    string
		in      []byte
		op      byte
		payload string
		rest    string
		err     string
	}{
		{name: "empty", in: nil, err: "not complete"},
		{name: "half a head", in: []byte{0x81}, err: "not complete"},
		{name: "text", in: frame("\x81\x02", "hi!"), op: opText, payload: "hi", rest: "!"},
		{name: "empty ping", in: []byte{0x89, 0}, op: opPing},
		{name: "part of a payload", in: frame("\x81\x05", "hi"), err: "not complete"},
		{name: "16 bit size", in: frame("\x81\x7e\x01\x2c", long), op: opText, payload: long},
		{name: "half a 16 bit size", in: []byte{0x81, 126, 1}, err: "not complete"},
		{name: "64 bit size", in: frame("\x81\x7f\x00\x00\x00\x00\x00\x00\x01\x2c", long), op: opText, payload: long},
		{name: "half a 64 bit size", in: []byte{0x81, 127, 0, 0}, err: "not complete"},
		{name: "far too long", in: []byte{0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0}, err: "at most"},
		{name: "a fragment", in: []byte{0x01, 0}, err: "fragment"},
		{name: "compressed", in: []byte{0xc1, 0}, err: "extension"},
		{name: "masked", in: []byte{0x81, 0x80, 1, 2, 3, 4}, err: "masked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			op, payload, rest, err := nextFrame(c.in)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want an error about %q", err, c.err)
				}
				return
			}
			if err != nil || op != c.op || string(payload) != c.payload || string(rest) != c.rest {
				t.Errorf("got %d %q %q %v, want %d %q %q", op, payload, rest, err, c.op, c.payload, c.rest)
			}
		})
	}
}

// unmask turns a client's frame into one a server would send.
func unmask(t testing.TB, b []byte) []byte {
	t.Helper()
	head := 2
	switch b[1] & 0x7f {
	case 126:
		head = 4
	case 127:
		head = 10
	}
	out := append([]byte{}, b[:head]...)
	out[1] &= 0x7f
	for i, c := range b[head+4:] {
		out = append(out, c^b[head+i&3])
	}
	return out
}

func TestAppendFrame(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65535, 65536} {
		payload := strings.Repeat("p", size)
		op, got, rest, err := nextFrame(unmask(t, appendFrame(nil, opText, []byte(payload))))
		if err != nil || op != opText || string(got) != payload || len(rest) != 0 {
			t.Errorf("%d bytes: got %d bytes, opcode %d, %d left, %v", size, len(got), op, len(rest), err)
		}
	}
}

func FuzzNextFrame(f *testing.F) {
	f.Add([]byte("\x81\x02hi"))
	f.Add([]byte("\x81\x7e\x00\x03abc\x89\x00"))
	f.Add([]byte{0x88, 0x02, 0x0f, 0xa1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for {
			_, payload, rest, err := nextFrame(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) || len(payload)+len(rest) >= len(b) {
				t.Fatalf("got %d and %d bytes out of %d", len(payload), len(rest), len(b))
			}
			b = rest
		}
	})
}

const event = `{"type":"message","room":"bench-x-7","seq":43,"id":"0197","from":"bx-p1","ts":1764000000123,"nonce":"x-1-2","text":"%s"}`

func TestParseMessage(t *testing.T) {
	want := stamp{pub: 3, n: 1234, at: 9876543210}
	text := appendText(nil, want, 120)
	if len(text) != 120 {
		t.Errorf("got a text of %d bytes, want 120", len(text))
	}
	got, err := parseMessage(fmt.Appendf(nil, event, text))
	if err != nil || got.stamp != want || got.seq != 43 || string(got.room) != "bench-x-7" {
		t.Errorf("got %+v, %v, want %+v in bench-x-7 at 43", got, err, want)
	}
	if short := appendText(nil, want, 0); !strings.HasPrefix(string(text), string(short)) {
		t.Errorf("got %q for no size, want the stamp alone", short)
	}
	for name, in := range map[string]string{
		"another's text":    fmt.Sprintf(event, "hello"),
		"masked by plugin":  fmt.Sprintf(event, "bench 3 **** 98 x"),
		"no room":           `{"type":"message","seq":1,"text":"bench 1 1 1 "}`,
		"no seq":            `{"type":"message","room":"a","text":"bench 1 1 1 "}`,
		"seq without digit": `{"type":"message","room":"a","seq":x,"text":"bench 1 1 1 "}`,
		"no end":            `{"type":"message","room":"a`,
		"too many digits":   fmt.Sprintf(event, "bench 1 1 99999999999999999999 "),
		"absurd publisher":  fmt.Sprintf(event, "bench 99999 1 1 "),
		"nothing follows":   `{"room":"a","seq":1,"text":"bench 1 1 1`,
	} {
		if got, err := parseMessage([]byte(in)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

func TestKindOf(t *testing.T) {
	for in, want := range map[string]string{
		`{"type":"message","room":"a"}`: "message", `{"type":"pong"}`: "pong", `{"type":"`: "", `{"type":"x`: "", `[]`: "", ``: "",
	} {
		if got := kindOf([]byte(in)); got != want {
			t.Errorf("kindOf(%q): got %q, want %q", in, got, want)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add(fmt.Sprintf(event, appendText(nil, stamp{pub: 1, n: 2, at: 3}, 100)))
	f.Add(`{"type":"message","room":"`)
	f.Fuzz(func(t *testing.T, in string) {
		_ = kindOf([]byte(in))
		m, err := parseMessage([]byte(in))
		if err == nil && (m.pub < 0 || m.pub >= maxPublishers || m.at < 0) {
			t.Errorf("got %+v from %q", m, in)
		}
	})
}

// TestCheckFindsFaults seeds each fault into what a member hears.
func TestCheckFindsFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		heard []uint64 // numbers of one publisher
		want  Faults
		lost  uint64 // of 5 acknowledged
	}{
		{name: "all in order", heard: []uint64{1, 2, 3, 4, 5}},
		{name: "one lost", heard: []uint64{1, 2, 4, 5}, lost: 1},
		{name: "the last lost", heard: []uint64{1, 2, 3}, lost: 2},
		{name: "nothing heard", lost: 5},
		{name: "one twice", heard: []uint64{1, 2, 2, 3, 4, 5}, want: Faults{Duplicate: 1}},
		{name: "twice and one lost", heard: []uint64{1, 1, 3, 4, 5}, want: Faults{Duplicate: 1}, lost: 1},
		{name: "one late", heard: []uint64{1, 3, 2, 4, 5}, want: Faults{Late: 1}},
		{name: "late, then again", heard: []uint64{1, 3, 2, 2, 4, 5}, want: Faults{Late: 1, Duplicate: 1}},
		{name: "backwards", heard: []uint64{5, 4, 3, 2, 1}, want: Faults{Late: 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Faults
			var v membership
			for _, n := range c.heard {
				v.heard(stamp{pub: 1, n: n}, &f)
			}
			if f != c.want {
				t.Errorf("got %+v, want %+v", f, c.want)
			}
			if got := v.lost([]uint64{0, 5}); got != c.lost {
				t.Errorf("got %d lost, want %d", got, c.lost)
			}
		})
	}
}

func TestCheckRemembersBounded(t *testing.T) {
	var f Faults
	var s stream
	s.take(1<<40, &f)
	if len(s.missing) != maxMissing {
		t.Errorf("got %d numbers remembered, want %d", len(s.missing), maxMissing)
	}
	s.take(1, &f)
	s.take(1<<39, &f)
	if want := (Faults{Late: 1, Duplicate: 1}); f != want {
		t.Errorf("got %+v, want %+v: both are wrong, the second beyond what is remembered", f, want)
	}
}

func TestSeqMustBeDense(t *testing.T) {
	for _, c := range []struct {
		name string
		seqs []uint64
		want uint64
	}{
		{name: "dense", seqs: []uint64{4, 5, 6}},
		{name: "a hole", seqs: []uint64{4, 6, 7}, want: 1},
		{name: "back", seqs: []uint64{4, 5, 4, 6}, want: 1},
		{name: "swapped", seqs: []uint64{5, 4, 6}, want: 2},
	} {
		var f Faults
		v := membership{next: 4}
		for _, s := range c.seqs {
			v.seq(s, &f)
		}
		if f.Holes != c.want {
			t.Errorf("%s: got %d holes, want %d", c.name, f.Holes, c.want)
		}
	}
}

func TestRoomLogComparesBytes(t *testing.T) {
	r := roomLog{ring: make([]entry, 8)}
	if _, ok := r.known(0, nil); ok {
		t.Error("got an event for no seq")
	}
	m := message{seq: 3, stamp: stamp{pub: 1, n: 9}}
	if r.learn(m, []byte("one")) {
		t.Error("the first differs from nothing")
	}
	if e, ok := r.known(3, []byte("one")); !ok || e.n != 9 {
		t.Errorf("got %+v, %v, want the message", e, ok)
	}
	if _, ok := r.known(3, []byte("two")); ok {
		t.Error("got other bytes taken for the same")
	}
	if !r.learn(m, []byte("two")) {
		t.Error("other bytes for the same seq must differ")
	}
	if r.learn(message{seq: 11}, []byte("later")) || r.learn(m, []byte("old again")) {
		t.Error("an event that fell out of the ring differs from nothing")
	}
	if _, ok := r.known(11, []byte("later")); !ok {
		t.Error("an old event pushed a newer one out")
	}
}

func TestStatsTravelAndMerge(t *testing.T) {
	a, b := NewStats(), NewStats()
	for i := range 100 {
		a.Delivery.Record(int64(i+1) * 1e6)
		b.Delivery.Record(int64(i+101) * 1e6)
	}
	b.Delivery.Record(int64(time.Hour)) // beyond what is kept: counted as the longest
	a.Open, a.Delivered, a.Closed["close 4501"], a.Faults.Lost = 3, 100, 1, 2
	b.Open, b.Delivered, b.Closed["close 4501"], b.Faults = 4, 101, 2, Faults{Duplicate: 1, Late: 2, Holes: 3, Differ: 4, Foreign: 5, Resets: 6}
	a.Seconds = []Second{{Delivered: 1, P99ms: 5, MaxMS: 6}}
	b.Seconds = []Second{{Delivered: 2, P99ms: 4, MaxMS: 7}, {Delivered: 9}}
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var back Stats
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	a.Merge(&back)
	if a.Open != 7 || a.Delivered != 201 || a.Closed["close 4501"] != 3 || a.Delivery.Count() != 201 {
		t.Errorf("got %d open, %d delivered, %v closed, %d latencies", a.Open, a.Delivered, a.Closed, a.Delivery.Count())
	}
	if want := (Faults{Lost: 2, Duplicate: 1, Late: 2, Holes: 3, Differ: 4, Foreign: 5, Resets: 6}); a.Faults != want {
		t.Errorf("got %+v, want %+v", a.Faults, want)
	}
	if p50 := a.Delivery.At(50); p50 < 100*time.Millisecond || p50 > 102*time.Millisecond {
		t.Errorf("got a median of %v, want 101ms", p50)
	}
	if got := a.Delivery.Max(); got < longest-time.Second || got > longest+time.Second {
		t.Errorf("got a longest time of %v, want %v", got, longest)
	}
	if want := []Second{{Delivered: 3, P99ms: 5, MaxMS: 7}, {Delivered: 9}}; !reflect.DeepEqual(a.Seconds, want) {
		t.Errorf("got %+v, want %+v", a.Seconds, want)
	}
	if err := json.Unmarshal([]byte(`{"delivery":"AAAA"}`), &back); err == nil {
		t.Error("got no error for a broken histogram")
	}
	if b, err := json.Marshal(Latency{}); err != nil || string(b) != "null" {
		t.Errorf("got %s, %v for no histogram, want null", b, err)
	}
}

func TestSpecIsChecked(t *testing.T) {
	good := Spec{Server: "127.0.0.1:1", Path: "/", Members: 10, RoomSize: 5, Rooms: 2, Publishers: 1, Parallel: 1, Bind: "127.0.0.2"}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Spec){
		"server":     func(s *Spec) { s.Server = "localhost" },
		"IPv6":       func(s *Spec) { s.Server = "[::1]:80" },
		"bind":       func(s *Spec) { s.Bind = "here" },
		"nobody":     func(s *Spec) { s.Members, s.Publishers = 0, 0 },
		"too many":   func(s *Spec) { s.Members, s.RoomSize = MaxConnections, MaxConnections },
		"publishers": func(s *Spec) { s.Members, s.Publishers = 0, maxPublishers+1 },
		"room size":  func(s *Spec) { s.RoomSize = 0 },
		"rooms":      func(s *Spec) { s.Rooms = 0 },
		"no room":    func(s *Spec) { s.Rooms = 1 },
		"text":       func(s *Spec) { s.TextBytes = maxText + 1 },
		"parallel":   func(s *Spec) { s.Parallel = 0 },
	} {
		s := good
		change(&s)
		if err := s.check(); err == nil {
			t.Errorf("%s: got no error for %+v", name, s)
		}
	}
	for name, tr := range map[string]Traffic{
		"rate": {Rate: -1}, "in flight": {InFlight: 5000}, "order": {Rate: 1, From: 5, Measure: 4, Until: 6}, "endless": {Rate: 1, Until: int64(48 * time.Hour)},
	} {
		if err := tr.check(); err == nil {
			t.Errorf("%s: got no error for %+v", name, tr)
		}
	}
}
