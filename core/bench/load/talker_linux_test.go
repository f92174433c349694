package load

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// talker is a server of protocol v1 with one fault that a test chooses: a real
// server has none to find. It has one room for everybody.
type talker struct {
	addr  string
	fault func(member int, event []byte) [][]byte // what becomes of a member's delivery
	reply func(c map[string]any) string           // an answer instead of the usual one; "" keeps it
	begin string                                  // HTTP answer instead of 101
	turns atomic.Int32                            // upgrades to refuse with a time to come back
	lines bool                                    // the transport without frames

	mu      sync.Mutex
	seq     int
	members []net.Conn
	opened  []net.Conn
}

func startTalker(t *testing.T) *talker {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return talkOn(t, &talker{}, ln)
}

// talkOn serves on a listener.
func talkOn(t *testing.T, s *talker, ln net.Listener) *talker {
	s.addr = ln.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.opened = append(s.opened, c)
			s.mu.Unlock()
			serving.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.mu.Lock()
		for _, c := range s.opened {
			_ = c.Close()
		}
		s.mu.Unlock()
		serving.Wait()
	})
	return s
}

func (s *talker) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	if s.lines {
		if s.turns.Add(-1) >= 0 {
			s.say(c, `{"type":"error","code":"overloaded","retryable":true,"retry_after_ms":1}`)
			return
		}
		for lines := bufio.NewScanner(in); lines.Scan(); {
			s.command(c, lines.Bytes())
		}
		return
	}
	if _, err := http.ReadRequest(in); err != nil {
		return
	}
	if s.turns.Add(-1) >= 0 {
		_, _ = c.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n\r\n"))
		return
	}
	if s.begin != "" {
		_, _ = c.Write([]byte(s.begin))
		return
	}
	_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
	for {
		payload, op, err := readMasked(in)
		if err != nil {
			return
		}
		if op == opText {
			s.command(c, payload)
		}
	}
}

// readMasked reads one frame of a client.
func readMasked(in *bufio.Reader) (payload []byte, op byte, err error) {
	var head [2]byte
	if _, err := readFull(in, head[:]); err != nil {
		return nil, 0, err
	}
	size := int(head[1] & 0x7f)
	if size == 126 {
		var b [2]byte
		if _, err := readFull(in, b[:]); err != nil {
			return nil, 0, err
		}
		size = int(b[0])<<8 | int(b[1])
	}
	body := make([]byte, 4+size)
	if _, err := readFull(in, body); err != nil {
		return nil, 0, err
	}
	for i := range body[4:] {
		body[4+i] ^= body[i&3]
	}
	return body[4:], head[0] & 0x0f, nil
}

func readFull(in *bufio.Reader, b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := in.Read(b[n:])
		if err != nil {
			return n, err
		}
		n += m
	}
	return len(b), nil
}

// frame is a server's frame.
func frame(op byte, payload string) []byte {
	f := []byte{0x80 | op, byte(len(payload))}
	if len(payload) >= 126 {
		f = []byte{0x80 | op, 126, byte(len(payload) >> 8), byte(len(payload))}
	}
	return append(f, payload...)
}

// say sends an event as the transport wants it.
func (s *talker) say(c net.Conn, event string) {
	if s.lines {
		_, _ = c.Write([]byte(event + "\n"))
		return
	}
	_, _ = c.Write(frame(opText, event))
}

// ping sends a heartbeat.
func (s *talker) ping(c net.Conn) {
	if s.lines {
		s.say(c, `{"type":"ping","ts":7}`)
		return
	}
	_, _ = c.Write(frame(opPing, "still there?"))
}

func (s *talker) command(c net.Conn, text []byte) {
	var in map[string]any
	if err := json.Unmarshal(text, &in); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reply != nil {
		if answer := s.reply(in); answer != "" {
			s.say(c, answer)
			return
		}
	}
	switch in["type"] {
	case "hello":
		s.say(c, `{"type":"welcome","id":"h"}`)
	case "join":
		s.members = append(s.members, c)
		s.ping(c)
		s.say(c, fmt.Sprintf(`{"type":"joined","id":"j","room":%q,"seq":%d}`, in["room"], s.seq))
	case "send":
		s.seq++
		s.say(c, fmt.Sprintf(`{"type":"ack","id":%q,"room":%q,"seq":%d,"outcome":"accepted"}`, in["id"], in["room"], s.seq))
		event := fmt.Sprintf(`{"type":"message","room":%q,"seq":%d,"from":"x","text":%q}`, in["room"], s.seq, in["text"])
		for i, m := range s.members {
			all := [][]byte{[]byte(event)}
			if s.fault != nil {
				all = s.fault(i, []byte(event))
			}
			for _, e := range all {
				s.say(m, string(e))
			}
		}
	}
}

// has reports whether an event is message n of the only publisher.
func has(event []byte, n int) bool {
	return strings.Contains(string(event), fmt.Sprintf(`"text":"bench 0 %d `, n))
}
