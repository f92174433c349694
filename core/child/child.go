package child

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"time"
)

// Limits are what one child may use.
type Limits struct {
	MemoryBytes uint64        // of address space, beyond what the program has when it begins to work (RLIMIT_AS)
	CPU         time.Duration // processor time (RLIMIT_CPU), whole seconds
	Wall        time.Duration // from its start to its last byte
	AnswerBytes int           // what it may answer
	Dir         string        // its working folder; "": the root
	FileBytes   uint64        // of each file it writes (RLIMIT_FSIZE); 0: it may write none
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

const maxStderr = 8 << 10

// headBytes is what goes before a request: memory, CPU in ns, bytes of a file,
// length.
const headBytes = 32

// Run starts command and gives it request; the answer is what Serve's function
// returned there. An error that wraps ErrDied is of a child that gave none and
// reads "…: it used more than …"; see Passing. Any other is ctx's, or says why
// no child could be started.
func Run(ctx context.Context, command []string, lim Limits, request []byte) ([]byte, error) {
	if err := lim.Check(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, lim.Wall)
	defer cancel()
	var head []byte
	for _, n := range []uint64{lim.MemoryBytes, uint64(lim.CPU), lim.FileBytes, uint64(len(request))} {
		head = binary.LittleEndian.AppendUint64(head, n)
	}
	stdout, stderr := &bounded{most: lim.AnswerBytes}, &bounded{most: maxStderr}
	cmd := exec.CommandContext(limited, command[0], command[1:]...)
	cmd.Env, cmd.Dir = []string{}, cmp.Or(lim.Dir, string(filepath.Separator))
	cmd.Stdin = io.MultiReader(bytes.NewReader(head), bytes.NewReader(request))
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 5 * time.Second // a grandchild could hold the pipes
	ownGroup(cmd)
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return nil, &diedError{fmt.Sprintf("it took longer than %v; it is too much work, or the machine is overloaded", lim.Wall), true}
	case cmd.ProcessState == nil:
		return nil, fmt.Errorf("start a child process: %w", err)
	case !cmd.ProcessState.Success():
		return nil, lim.cause(cmd.ProcessState, stderr.buf.Bytes())
	case err != nil:
		return nil, &diedError{fmt.Sprintf("its answer could not be read: %v", err), true}
	case stdout.over:
		return nil, &diedError{fmt.Sprintf("it answered with more than %d bytes", lim.AnswerBytes), true}
	}
	return stdout.buf.Bytes(), nil
}

// Serve is the child's side: it limits this process, reads one request of at
// most maxRequest bytes from in, and writes what work makes of it to out. It
// returns the exit code. The program must do nothing else.
func Serve(in io.Reader, out io.Writer, maxRequest int, work func(request []byte) []byte) int {
	debug.SetTraceback("none")
	return serve(in, out, maxRequest, limitProcess, work)
}

func serve(in io.Reader, out io.Writer, maxRequest int, limit func(Limits) error, work func([]byte) []byte) int {
	head := make([]byte, headBytes)
	if _, err := io.ReadFull(in, head); err != nil {
		return 2
	}
	number := func(i int) uint64 { return binary.LittleEndian.Uint64(head[8*i:]) }
	n := number(3)
	if n > uint64(maxRequest) {
		return 2
	}
	if err := limit(Limits{MemoryBytes: number(0), CPU: time.Duration(number(1)), FileBytes: number(2)}); err != nil {
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
