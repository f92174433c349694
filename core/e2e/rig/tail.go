package rig

import (
	"strings"
	"sync"
)

// Tail keeps the last lines of a process's output.
type Tail struct {
	mu    sync.Mutex
	lines []string
}

const tailLines = 400

// Add keeps a line, in place of the oldest once there are too many.
func (l *Tail) Add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) >= tailLines {
		l.lines = l.lines[1:]
	}
	l.lines = append(l.lines, line)
}

// Has reports whether a kept line contains s.
func (l *Tail) Has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}

// String joins the kept lines.
func (l *Tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
