//go:build unix

package redistest

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// book is what a server has logged: the events that tests wait for.
type book struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed and replaced with each line
}

func newBook() *book { return &book{more: make(chan struct{})} }

// follow reads the server's log and waits for the process. It closes ended.
func (b *book) follow(cmd *exec.Cmd, log io.Reader, ended chan struct{}) {
	defer close(ended)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		b.mu.Lock()
		b.lines = append(b.lines, lines.Text())
		close(b.more)
		b.more = make(chan struct{})
		b.mu.Unlock()
	}
	_ = cmd.Wait()
}

// await waits until n lines from the given one on contain text.
func (b *book) await(from int, text string, n int, ended chan struct{}) error {
	patience := time.After(Patience)
	for {
		b.mu.Lock()
		found, more := 0, b.more
		for _, line := range b.lines[from:] {
			if strings.Contains(line, text) {
				found++
			}
		}
		b.mu.Unlock()
		if found >= n {
			return nil
		}
		select {
		case <-more:
		case <-ended:
			return fmt.Errorf("it ended and said: %s", b)
		case <-patience:
			return fmt.Errorf("it has not logged %q %d times in %v; it said: %s", text, n, Patience, b)
		}
	}
}

// len is the number of lines so far.
func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.lines)
}

// String is the newest lines.
func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines[max(0, len(b.lines)-20):], "\n")
}

// Logged is how many lines the server has logged since it was started: a place
// from which AwaitLog can begin.
func (s *Server) Logged() int { return s.output.len() }

// AwaitLog waits until the server has logged a line with text, not counting
// the first lines.
func (s *Server) AwaitLog(first int, text string) {
	s.t.Helper()
	s.awaitLogs(first, text, 1)
}

func (s *Server) awaitLogs(first int, text string, n int) {
	s.t.Helper()
	if err := s.output.await(first, text, n, s.ended); err != nil {
		s.t.Fatalf("redis-server at %s: %v", s.Addr(), err)
	}
}
