package child

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

// Limits are what one child may use.
type Limits struct {
	MemoryBytes uint64        // of address space, beyond what the program has when it begins to work (RLIMIT_AS)
	CPU         time.Duration // processor time (RLIMIT_CPU), whole seconds
	Wall        time.Duration // from its start to its last byte
	AnswerBytes int           // what it may answer
}

// Check names the first limit that no child could live with.
func (l Limits) Check() error {
	switch {
	case l.MemoryBytes < 64<<20:
		return fmt.Errorf("a child's memory of %d bytes is less than 64 MiB", l.MemoryBytes)
	case l.CPU < time.Second || l.Wall < time.Second:
		return fmt.Errorf("a child's time of %v of CPU and %v in all is less than a second", l.CPU, l.Wall)
	case l.AnswerBytes < 1:
		return errors.New("a child's answer of no bytes says nothing")
	}
	return nil
}

// ErrDied is wrapped by the error of a child that gave no answer.
var ErrDied = errors.New("the child process that tried it died")

// ErrSlow is wrapped, with ErrDied, where only the wall clock ended a child:
// on a quieter machine the same work may pass.
var ErrSlow = errors.New("it took too long")

const maxStderr = 8 << 10

// headBytes is what goes before a request: memory, CPU in ns, length.
const headBytes = 24

// Run starts command and gives it request; the answer is what Serve's function
// returned there. An error that wraps ErrDied is the fault of the request and
// reads "…: it used more than …"; any other is ctx's, or says why no child
// could be started.
func Run(ctx context.Context, command []string, lim Limits, request []byte) ([]byte, error) {
	if err := lim.Check(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, lim.Wall)
	defer cancel()
	head := binary.LittleEndian.AppendUint64(nil, lim.MemoryBytes)
	head = binary.LittleEndian.AppendUint64(head, uint64(lim.CPU))
	head = binary.LittleEndian.AppendUint64(head, uint64(len(request)))
	stdout, stderr := &bounded{most: lim.AnswerBytes}, &bounded{most: maxStderr}
	cmd := exec.CommandContext(limited, command[0], command[1:]...)
	cmd.Env, cmd.Dir = []string{}, string(filepath.Separator) // which every system has
	cmd.Stdin = io.MultiReader(bytes.NewReader(head), bytes.NewReader(request))
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 5 * time.Second // a grandchild could hold the pipes
	ownGroup(cmd)
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return nil, fmt.Errorf("%w: %w: more than %v in all; it is too much work, or the machine is overloaded", ErrDied, ErrSlow, lim.Wall)
	case cmd.ProcessState == nil:
		return nil, fmt.Errorf("start a child process: %w", err)
	case !cmd.ProcessState.Success():
		return nil, fmt.Errorf("%w: %s", ErrDied, lim.cause(cmd.ProcessState, stderr.buf.String()))
	case stdout.over:
		return nil, fmt.Errorf("%w: it answered with more than %d bytes", ErrDied, lim.AnswerBytes)
	}
	return stdout.buf.Bytes(), nil
}

// cause says which limit ended a child.
func (l Limits) cause(state *os.ProcessState, said string) string {
	memory := fmt.Sprintf("it needs more than %d MiB of memory (RLIMIT_AS)", l.MemoryBytes>>20)
	for _, text := range []string{"out of memory", "cannot allocate memory", "failed to create new OS thread"} {
		if strings.Contains(said, text) {
			return memory
		}
	}
	switch {
	case strings.Contains(said, "SIGXCPU") || state.UserTime()+state.SystemTime() >= l.CPU:
		return fmt.Sprintf("it used more than %v of processor time (RLIMIT_CPU)", l.CPU)
	case strings.Contains(said, "goroutine stack exceeds") || strings.Contains(said, "stack overflow"):
		return "it recursed too deeply; nest less"
	case strings.Contains(said, "SIGSEGV"): // what an allocation that failed ends in, deep in the runtime
		return memory
	}
	return fmt.Sprintf("it ended with %v; if the kernel killed it for want of memory, give the machine more: %s", state, gist(said))
}

// gist is the first line that somebody wrote.
func gist(said string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(said, "?")), "\n")
	if line == "" {
		return "it said nothing"
	}
	return line[:min(len(line), 200)]
}

// Serve is the child's side: it limits this process, reads one request of at
// most maxRequest bytes from in, and writes what work makes of it to out. It
// returns the exit code. The program must do nothing else.
func Serve(in io.Reader, out io.Writer, maxRequest int, work func(request []byte) []byte) int {
	debug.SetTraceback("none")
	return serve(in, out, maxRequest, limitProcess, work)
}

func serve(in io.Reader, out io.Writer, maxRequest int, limit func(memory uint64, cpu time.Duration) error, work func([]byte) []byte) int {
	head := make([]byte, headBytes)
	if _, err := io.ReadFull(in, head); err != nil {
		return 2
	}
	memory, cpu, n := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint64(head[8:]), binary.LittleEndian.Uint64(head[16:])
	if n > uint64(maxRequest) {
		return 2
	}
	if err := limit(memory, time.Duration(cpu)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	request := make([]byte, n)
	if _, err := io.ReadFull(in, request); err != nil {
		return 2
	}
	if _, err := out.Write(work(request)); err != nil {
		return 2
	}
	return 0
}

// Command is the argv that starts this very program with one argument, even
// when its file has been replaced since. It is nil where the system does not
// tell which program runs.
func Command(name string) []string {
	const self = "/proc/self/exe" // of the child, which is still this program when it looks
	if _, err := os.Stat(self); err == nil {
		return []string{self, name}
	}
	path, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{path, name}
}

// bounded keeps the first bytes of what is written and drops the rest.
type bounded struct {
	buf  bytes.Buffer // not embedded: its ReadFrom would take everything
	most int
	over bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	room := max(b.most-b.buf.Len(), 0)
	if len(p) > room {
		b.over = true
	}
	b.buf.Write(p[:min(len(p), room)])
	return len(p), nil
}
