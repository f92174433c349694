//go:build linux

package experiments

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Children are programs that must have a process to themselves, because they
// need other settings of the runtime. The binary runs them as
// `platform experiments child NAME`.
func Children() map[string]func(ctx context.Context, in io.Reader, out io.Writer) error {
	return map[string]func(context.Context, io.Reader, io.Writer) error{
		"chain":   chainChild,
		"churn":   churnChild,
		"starve":  starveChild,
		"http":    httpChild,
		"request": requestChild,
	}
}

// childTime bounds a child that should have ended by itself.
const childTime = 10 * time.Minute

// child runs a child with its orders as JSON and decodes its answer. It
// returns what the child wrote to standard error, gctrace lines included.
func (l *Lab) child(ctx context.Context, name string, env []string, orders, answer any) (stderr []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, childTime)
	defer cancel()
	in, err := json.Marshal(orders)
	if err != nil {
		return nil, err
	}
	cmd := l.command(ctx, name)
	cmd.Env = append(plainEnv(), env...)
	cmd.Stdin = bytes.NewReader(append(in, '\n'))
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s with %v: %w: %.500s", name, env, err, problems.String())
	}
	if err := json.Unmarshal(out.Bytes(), answer); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", name, err)
	}
	return problems.Bytes(), nil
}

// ChildCommand is the word before a child's name on the command line.
const ChildCommand = "child"

// command runs a child in the binary under test. What that binary allocates
// before main is garbage at once, so a child's heap begins as small as that of
// any small program (TestTriggerIsTheMinimumHeap).
func (l *Lab) command(ctx context.Context, name string) *exec.Cmd {
	return exec.CommandContext(ctx, l.Bench.Exe, "experiments", ChildCommand, name)
}

// plainEnv is the environment without settings of the Go runtime.
func plainEnv() (env []string) {
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG":
		default:
			env = append(env, e)
		}
	}
	return env
}

// ordered decodes a child's orders, which are one line.
func ordered(in io.Reader, orders any) error {
	line, err := bufio.NewReaderSize(in, 64<<10).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the orders: %w", err)
	}
	if err := json.Unmarshal(line, orders); err != nil {
		return fmt.Errorf("read the orders: %w", err)
	}
	return nil
}
