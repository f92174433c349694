package redis

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// stranger answers whatever it is asked with the bytes it was given, over a
// real socket, and hangs up. It is a socket of the file system: so many
// connections in so little time would use up the machine's ports.
type stranger struct {
	net.Listener
	work sync.WaitGroup

	mu    sync.Mutex
	greet bool // answer the greeting as Redis does, and only then so
	says  []byte
}

func newStranger(t testing.TB) *stranger {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{Listener: l}
	s.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.work.Go(func() { s.talk(c) })
		}
	})
	t.Cleanup(func() { l.Close(); s.work.Wait() })
	return s
}

func (s *stranger) talk(c net.Conn) {
	defer c.Close()
	s.mu.Lock()
	greet, says := s.greet, s.says
	s.mu.Unlock()
	buf := make([]byte, 4<<10)
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return
	}
	if _, err := c.Read(buf); err != nil {
		return
	}
	if greet {
		if _, err := c.Write([]byte("*0\r\n")); err != nil {
			return
		}
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
	if _, err := c.Write(says); err != nil {
		return
	}
	if half, ok := c.(*net.UnixConn); ok { // an orderly end: what was written arrives
		_ = half.CloseWrite()
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}
}

func (s *stranger) set(greet bool, says []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greet, s.says = greet, says
}

const (
	hostileLimit = 64 << 10
	// hostileMost is what a call may allocate in all: connections with their
	// buffers, a client for each primary that is named, and a few copies of the
	// reply. A length that was believed would be gigabytes.
	hostileMost = 32 << 20
)

// FuzzAnswers has a stranger at Redis's address answer every kind of question
// that this package asks. Each call ends with a value or an error, in time, and
// takes no more memory than its bound.
func FuzzAnswers(f *testing.F) {
	for _, says := range []string{
		"+OK\r\n", "$2\r\nhi\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "-ERR no\r\n", "-MOVED 1 127.0.0.1:1\r\n", "-NOSCRIPT x\r\n", "$-1\r\n", "*-1\r\n",
		"$2000000000\r\n", "*2000000000\r\n", "$99999999999999999999999\r\n", "$-2\r\n", "*1\r\n*1\r\n*1\r\n:1\r\n", strings.Repeat("*1\r\n", 5000), "%1\r\n+a\r\n+b\r\n",
		"|1\r\n+a\r\n+b\r\n+c\r\n", ">2\r\n+a\r\n+b\r\n", "=5\r\ntxt:a\r\n", "!3\r\nERR\r\n", "(1\r\n", ",1\r\n", "#t\r\n", "_\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n",
		"$20\r\nredis_version:7.0.15\r\n", strings.Repeat("x", 70000), "+" + strings.Repeat("x", 70000) + "\r\n",
		// Slots.
		"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$1\r\nx\r\n",
		"*1\r\n*4\r\n:0\r\n:5\r\n*2\r\n$-1\r\n:7001\r\n*2\r\n$0\r\n\r\n:7002\r\n", "*1\r\n*3\r\n:5\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\na\r\n:1\r\n", "*1\r\n:1\r\n", "*0\r\n",
		// A sentinel.
		"*6\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$4\r\n7001\r\n$12\r\nconfig-epoch\r\n$1\r\n3\r\n", "*2\r\n$2\r\nip\r\n$1\r\nx\r\n", "*3\r\n+a\r\n+b\r\n+c\r\n",
		// What a subscriber hears.
		"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n", "*3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n", "*0\r\n*1\r\n:1\r\n", "*1\r\n$7\r\nmessage\r\n", "*3\r\n$9\r\nsubscribe\r\n:1\r\n$1\r\nx\r\n", "*4\r\n$8\r\npmessage\r\n:1\r\n:1\r\n:1\r\n", "*2\r\n$4\r\npong\r\n:1\r\n",
	} {
		for kind := range byte(4) {
			f.Add(kind, kind%2 == 0 || len(says) > 30, []byte(says))
		}
		f.Add(byte(3), true, []byte(says))
	}
	s := newStranger(f)
	urls := []string{"redis://h", "redis-cluster://h", "redis-sentinel://h/parley", "redis://h"}
	f.Fuzz(func(t *testing.T, kind byte, greet bool, says []byte) {
		s.set(greet, says)
		cfg := Defaults()
		cfg.URL, cfg.MaxReplyBytes = urls[kind%4], hostileLimit
		cfg.CallTimeout = 5 * time.Second // the stranger hangs up long before
		c := openAt(t, cfg, s.Addr())
		defer c.Close()
		began, before := time.Now(), allocated()
		hostile[kind%4](t, c)
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("it took %v", d)
		}
		if n := allocated() - before; n > hostileMost {
			t.Errorf("it took %d bytes, want at most %d", n, hostileMost)
		}
	})
}

// openAt is Open with another address than the URL's, which is always TCP
// where servers are searched for.
func openAt(t *testing.T, cfg Config, at net.Addr) *Client {
	t.Helper()
	d, err := cfg.dialling()
	if err != nil {
		t.Fatal(err)
	}
	d.to.network, d.to.hosts = at.Network(), []string{at.String()}
	return newClient(d, slog.New(slog.DiscardHandler))
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// size is how many bytes of text a reply has.
func size(v any) (n int) {
	switch v := v.(type) {
	case string:
		return len(v)
	case []any:
		for _, x := range v {
			n += size(x)
		}
	}
	return n
}

// hostile are the questions.
var hostile = [4]func(*testing.T, *Client){
	func(t *testing.T, c *Client) {
		script := NewScript("fuzz", "return 1")
		cmds := []Command{{Args: []any{"get", "a"}}, {Script: script, Keys: []string{"a"}}, {Args: []any{"hgetall", "a"}}}
		for i, r := range c.Pipeline(t.Context(), cmds) {
			if n := size(r.Value); n > hostileLimit {
				t.Errorf("reply %d has %d bytes, want at most %d", i, n, hostileLimit)
			}
		}
		_, _ = c.Persistence(t.Context())
	},
	func(t *testing.T, c *Client) {
		primaries, err := c.primaries(t.Context())
		if (err == nil) != (len(primaries) > 0) || len(primaries) > maxPrimaries {
			t.Errorf("got %d primaries and %v", len(primaries), err)
		}
		if err != nil {
			return
		}
		l := c.route.now.Load()
		for slot := range slotCount {
			if s, err := l.at(slot); err == nil && s == nil {
				t.Fatalf("slot %d has neither a primary nor an error", slot)
			}
		}
	},
	func(t *testing.T, c *Client) {
		all := c.route.finder.(*sentinels)
		o := all.ask(t.Context(), all.all[0])
		if o.err == nil && (o.addr == "" || strings.HasPrefix(o.addr, ":") || strings.HasSuffix(o.addr, ":")) {
			t.Errorf("got the address %q and no error", o.addr)
		}
	},
	func(t *testing.T, c *Client) {
		primaries, err := c.primaries(t.Context())
		if err != nil {
			t.Fatal(err) // one server is known from the start
		}
		conn := conn{PubSub: primaries[0].rdb.Subscribe(t.Context())}
		defer conn.Close()
		if conn.send(t.Context(), true, []string{"a"}) != nil {
			return
		}
		for range 20 { // after some answers the library connects anew
			_, err := conn.receive(t.Context(), time.Second)
			if _, ok := movedSlot(err); !ok && err != nil && replied(err) == "" {
				return
			}
		}
	},
}

// FuzzMeter holds that what a meter says does not depend on how the bytes were
// cut, and that it never lets more through than its bound.
func FuzzMeter(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "$100\r\n", "*-1\r\n$-1\r\n*0\r\n", "$3\r\nab", "$0\r\n\r\n+x\r\n", "*1\r\n*1\r\n", "$x\r\n", "\r\n", "*9999999999999999999\r\n"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		const limit = 4096
		whole, parts := meter{limit: limit}, meter{limit: limit}
		err1 := whole.follow(b)
		var err2 error
		for part := range chunks(b, int(size)+1) {
			if err2 = parts.follow(part); err2 != nil {
				break
			}
		}
		if (err1 == nil) != (err2 == nil) || err1 != nil && !errors.Is(err1, ErrReply) {
			t.Errorf("whole: %v, in parts of %d: %v", err1, int(size)+1, err2)
		}
		if err1 == nil && whole != parts {
			t.Errorf("whole: %+v, in parts: %+v", whole, parts)
		}
		if whole.spent > limit || whole.skip > limit+2 {
			t.Errorf("it let %d bytes through and %d more, want %d at most", whole.spent, whole.skip, limit)
		}
	})
}

func chunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

// BenchmarkMeter follows what a pipeline of 256 appends is answered.
func BenchmarkMeter(b *testing.B) {
	replies := bytes.Repeat([]byte("*4\r\n:1\r\n$16\r\n0123456789abcdef\r\n:123456\r\n$36\r\n0197c5f0-8001-7d4c-ae5f-6c2a1b3d5e7f\r\n"), 256)
	m := meter{limit: 64 << 20}
	b.ReportAllocs()
	b.SetBytes(int64(len(replies)))
	for b.Loop() {
		m.next()
		if err := m.follow(replies); err != nil {
			b.Fatal(err)
		}
	}
}
