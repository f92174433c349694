package disk_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/disk"
)

// childEnv names what the test binary does instead of running tests, when a
// test starts it as a process of its own.
const (
	childEnv = "PARLEY_JOURNAL_CHILD"
	pathEnv  = "PARLEY_JOURNAL_PATH"
)

func TestMain(m *testing.M) {
	children := map[string]func(path string) error{
		"flood": childFlood, "steps": childSteps, "open": childOpen,
	}
	child := children[os.Getenv(childEnv)]
	if child == nil {
		os.Exit(m.Run())
	}
	if err := child(os.Getenv(pathEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child prepares the test binary to run as the named child; wrap, where
// given, is a command to run it under.
func child(t *testing.T, name, path string, wrap ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrap, self)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+name, pathEnv+"="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// config is the default configuration with the file at path.
func config(path string) disk.Config {
	cfg := disk.Defaults()
	cfg.Path = path
	return cfg
}

// acked is a line that a child prints when an append was acknowledged.
type acked struct {
	room string
	seq  uint64
	id   string
}

func (a acked) String() string { return fmt.Sprintf("ack %s %d %s", a.room, a.seq, a.id) }

func parseAcked(line string) (a acked, ok bool) {
	f := strings.Fields(line)
	if len(f) != 4 || f[0] != "ack" {
		return a, false
	}
	seq, err := strconv.ParseUint(f[2], 10, 64)
	return acked{f[1], seq, f[3]}, err == nil
}

// childFlood appends from several goroutines to several rooms until it is
// killed, and prints each acknowledgement. Its ids are unique among children.
func childFlood(path string) error {
	j, err := disk.Open(config(path), nil)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for w := range 8 {
		wg.Go(func() {
			room := chat.RoomID(fmt.Sprintf("room-%d", w%3))
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				rc, err := j.Append(context.Background(), journal.Request{Room: room, Entry: journal.Entry{
					ID: chat.MessageID(id), Kind: journal.KindMessage, From: "ann", Nonce: id, Text: benchText,
				}})
				if err != nil {
					errs <- err
					return
				}
				mu.Lock()
				fmt.Fprintln(out, acked{string(room), rc.Seq, id})
				_ = out.Flush() // a reader that has gone kills us anyway
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return <-errs
}

// steps is how many messages childSteps appends.
const steps = 20

func stepText(n int) string { return fmt.Sprintf("message-number-%03d.", n) }

// childSteps appends one message after the other and writes "ack N" to its
// standard output, unbuffered, after each.
func childSteps(path string) error {
	j, err := disk.Open(config(path), nil)
	if err != nil {
		return err
	}
	for n := 1; n <= steps; n++ {
		_, err := j.Append(context.Background(), journal.Request{Room: "lobby", Entry: journal.Entry{
			ID: chat.MessageID(fmt.Sprint(n)), Kind: journal.KindMessage, From: "ann", Nonce: fmt.Sprint(n), Text: stepText(n),
		}})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(os.Stdout, "ack %d\n", n); err != nil {
			return err
		}
	}
	return j.Close()
}

// childOpen opens the file and says on standard output how that went.
func childOpen(path string) error {
	j, err := disk.Open(config(path), nil)
	if err != nil {
		_, err = fmt.Println(err)
		return err
	}
	return j.Close()
}
