package child

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// request is what Run sends.
func request(memory uint64, cpu time.Duration, body string) string {
	b := binary.LittleEndian.AppendUint64(nil, memory)
	b = binary.LittleEndian.AppendUint64(b, uint64(cpu))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(body)))
	return string(b) + body
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// The limits are set before the request is read, with what the parent sent;
// that they hold is tested in real children.
func TestServe(t *testing.T) {
	var out bytes.Buffer
	limited := false
	limit := func(memory uint64, cpu time.Duration) error {
		limited = memory == 1<<30 && cpu == 3*time.Second
		return nil
	}
	work := func(b []byte) []byte {
		if !limited {
			t.Error("it works before it is limited")
		}
		return bytes.ToUpper(b)
	}
	if code := serve(strings.NewReader(request(1<<30, 3*time.Second, "hi")), &out, 2, limit, work); code != 0 || out.String() != "HI" {
		t.Errorf("got %d, %q, want the answer", code, out.String())
	}
	broken := func(uint64, time.Duration) error { return errors.New("no limits here") }
	for name, code := range map[string]int{
		"limits that cannot be set": serve(strings.NewReader(request(1, 1, "")), io.Discard, 2, broken, work),
		"half a request":            serve(strings.NewReader(request(1<<30, 3*time.Second, "hi")[:25]), io.Discard, 2, limit, work),
		"a request too long":        serve(strings.NewReader(request(1<<30, 3*time.Second, "hello")), io.Discard, 2, limit, work),
		"an answer nobody reads":    serve(strings.NewReader(request(1<<30, 3*time.Second, "hi")), failing{}, 2, limit, work),
	} {
		if code == 0 {
			t.Errorf("%s: got exit code 0", name)
		}
	}
}

func TestTaken(t *testing.T) {
	if n := taken(); n < 1<<20 || n > 1<<50 {
		t.Errorf("got %d bytes of address space", n)
	}
}

// What the Go runtime says when it dies names the limit.
func TestCause(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "exit 2")
	if err := cmd.Run(); err == nil {
		t.Fatal("got exit code 0")
	}
	l := Limits{MemoryBytes: 512 << 20, CPU: 20 * time.Second}
	for said, want := range map[string]string{
		"fatal error: runtime: out of memory":                    "more than 512 MiB of memory (RLIMIT_AS)",
		"runtime: failed to create new OS thread":                "more than 512 MiB of memory (RLIMIT_AS)",
		"SIGXCPU: cpu limit exceeded":                            "more than 20s of processor time (RLIMIT_CPU)",
		"runtime: goroutine stack exceeds 1000000000-byte limit": "recursed too deeply",
		"SIGSEGV: segmentation violation":                        "more than 512 MiB of memory (RLIMIT_AS)",
		"":                                                       "it said nothing",
		"panic: " + strings.Repeat("x", 1000) + "\nsecond line of many": "panic: xxx",
	} {
		if got := l.cause(cmd.ProcessState, said); !strings.Contains(got, want) || len(got) > 400 || strings.Contains(got, "second") {
			t.Errorf("%.40q: got %q, want %q", said, got, want)
		}
	}
}
