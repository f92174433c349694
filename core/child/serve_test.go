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
	b = binary.LittleEndian.AppendUint64(b, 7)
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
	limit := func(l Limits) error {
		limited = l.MemoryBytes == 1<<30 && l.CPU == 3*time.Second && l.FileBytes == 7
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
	broken := func(Limits) error { return errors.New("no limits here") }
	for name, code := range map[string]int{
		"limits that cannot be set": serve(strings.NewReader(request(1, 1, "")), io.Discard, 2, broken, work),
		"half a request":            serve(strings.NewReader(request(1<<30, 3*time.Second, "hi")[:33]), io.Discard, 2, limit, work),
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

// Where not even this process is granted what a child may have, the machine has
// no memory, and another time it may.
func TestMachineWithoutMemory(t *testing.T) {
	for _, n := range []uint64{1 << 62, 1<<64 - 1} {
		l := Limits{MemoryBytes: n}
		if err := l.OutOfMemory(); !Passing(err) || !strings.Contains(err.Error(), "the machine has not the") {
			t.Errorf("%d bytes: got %v, want the machine blamed", n, err)
		}
	}
	if err := (Limits{MemoryBytes: 1 << 20}).OutOfMemory(); Passing(err) || !strings.Contains(err.Error(), "more than 1 MiB of memory (RLIMIT_AS)") {
		t.Errorf("1 MiB: got %v, want the limit blamed", err)
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
		"fatal error: runtime: out of memory":                                                 "more than 512 MiB of memory (RLIMIT_AS)",
		"runtime: failed to create new OS thread\nfatal error: newosproc":                     "more than 512 MiB of memory (RLIMIT_AS), or the machine",
		"runtime: goroutine stack exceeds 1000000000-byte limit\nfatal error: stack overflow": "recursed too deeply",
		"SIGSEGV: segmentation violation\nPC=0x40b1d3 m=0 sigcode=1 addr=0x18":                "more than 512 MiB of memory (RLIMIT_AS)",
		"": "it said nothing",
		"panic: " + strings.Repeat("x", 1000) + "\nsecond line of many":            "panic: xxx",
		"panic: it said\n\tfatal error: out of memory\nfatal error: out of memory": "it ended with exit status 2",
		"it said fatal error: out of memory, cannot allocate memory, SIGXCPU":      "it ended with exit status 2",
	} {
		if got := l.cause(cmd.ProcessState, []byte(said)).Error(); !strings.Contains(got, want) || len(got) > 500 || strings.Contains(got, "second") {
			t.Errorf("%.40q: got %q, want %q", said, got, want)
		}
	}
}
