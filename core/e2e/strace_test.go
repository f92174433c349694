package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"parley/core/client"
	"parley/core/wire"
)

// TestEveryAckFollowsItsSync watches the server's system calls: between
// reading a message from the socket and writing its ack to the socket, a
// fdatasync must have begun and ended.
func TestEveryAckFollowsItsSync(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("this test needs strace on the PATH: apt-get install strace")
	}
	n := newNode(t, nil)
	trace := filepath.Join(n.Dir, "trace")
	// -D makes the server our child, so that signals reach it and not strace.
	n.Wrap = []string{"strace", "-D", "-f", "-q", "-s", "256", "-o", trace,
		"-e", "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fdatasync,fsync"}
	n.Start()
	const messages = 20
	ids := make([]string, messages) // of the send commands
	v := visit(t, client.Options{URL: n.TCPURL(), SkipHello: true})
	say := func(id, frame string) {
		t.Helper()
		if err := v.WriteText([]byte(frame)); err != nil {
			t.Fatal(err)
		}
		first(v, "the ack of "+id, func(e *wire.AckEvent) bool { return e.ID == id })
	}
	if err := v.WriteText([]byte(`{"type":"hello","guest":"tracer"}`)); err != nil {
		t.Fatal(err)
	}
	first(v, "welcome", func(*wire.WelcomeEvent) bool { return true })
	for i := range ids {
		ids[i] = fmt.Sprintf("traced-%d-", i) // no id is the beginning of another
		say(ids[i], fmt.Sprintf(`{"type":"send","id":%q,"room":"lobby","nonce":"n%d","text":"message %d"}`, ids[i], i, i))
	}
	n.Stop()
	ended := regexp.MustCompile(fmt.Sprintf(`(?m)^%d +\+\+\+ exited`, n.Cmd.Process.Pid))
	await(t, "strace has written the end", func() bool {
		b, err := os.ReadFile(trace)
		return err == nil && ended.Match(b)
	})

	calls := readTrace(t, trace)
	for _, id := range ids {
		read, ack := -1, -1
		for i, c := range calls {
			switch {
			case !strings.Contains(c.text, id):
			case c.reads() && read < 0:
				read = c.ended
			case c.writes() && strings.Contains(c.text, `\"ack\"`) && ack < 0:
				ack = calls[i].began
			}
		}
		if read < 0 || ack < 0 {
			t.Fatalf("message %s: its read (line %d) or its ack (line %d) is not in the trace", id, read, ack)
		}
		synced := false
		for _, c := range calls {
			synced = synced || c.syncs() && c.began > read && c.ended < ack
		}
		if !synced {
			t.Errorf("message %s: no fdatasync between its read (line %d) and its ack (line %d)", id, read, ack)
		}
	}
}

// syscallLine is one call of a trace, by the lines on which it began and ended.
type syscallLine struct {
	name, text   string
	began, ended int
}

func (c syscallLine) reads() bool { return strings.HasPrefix(c.name, "re") }
func (c syscallLine) writes() bool {
	return strings.HasPrefix(c.name, "write") || strings.HasPrefix(c.name, "send")
}
func (c syscallLine) syncs() bool {
	return (c.name == "fdatasync" || c.name == "fsync") && strings.HasSuffix(c.text, "= 0")
}

var (
	traceWhole   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	traceResumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
)

// readTrace parses strace -f, where a call of one thread may begin and end on
// different lines with calls of other threads between them.
func readTrace(t *testing.T, path string) []syscallLine {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var calls []syscallLine
	open := make(map[string]int) // thread -> its unfinished call
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for line := 1; sc.Scan(); line++ {
		text := strings.TrimRight(sc.Text(), " ")
		if m := traceWhole.FindStringSubmatch(text); m != nil {
			c := syscallLine{name: m[2], text: m[3], began: line, ended: line}
			if begun, unfinished := strings.CutSuffix(m[3], "<unfinished ...>"); unfinished {
				c.text = begun
				open[m[1]] = len(calls)
			}
			calls = append(calls, c)
		} else if m := traceResumed.FindStringSubmatch(text); m != nil {
			if i, ok := open[m[1]]; ok && calls[i].name == m[2] {
				calls[i].text += m[3]
				calls[i].ended = line
				delete(open, m[1])
			}
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return calls
}
