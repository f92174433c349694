package disk_test

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// TestKill kills a process in the middle of its appends, again and again.
// Whatever it acknowledged must be there: once, in its place.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	var all []acked
	for round := range 5 {
		acks := floodAndKill(t, path, 300+50*round)
		all = append(all, acks...)
		j := open(t, config(path))
		where := map[string]acked{} // by id
		for _, room := range []chat.RoomID{"room-0", "room-1", "room-2"} {
			var last uint64
			for _, e := range readAll(t, j, room) {
				if e.Seq != last+1 {
					t.Fatalf("%s: got seq %d after %d, want a dense log", room, e.Seq, last)
				}
				last = e.Seq
				if twice, ok := where[string(e.ID)]; ok {
					t.Fatalf("%s is there twice: as %v and as seq %d", e.ID, twice, e.Seq)
				}
				where[string(e.ID)] = acked{string(room), e.Seq, string(e.ID)}
			}
		}
		for _, a := range all {
			if got := where[a.id]; got != a {
				t.Fatalf("after kill %d: acknowledged %v, got %v", round+1, a, got)
			}
			rc, ok, err := j.Lookup(t.Context(), chat.RoomID(a.room), "ann", a.id)
			if err != nil || !ok || rc.Seq != a.seq {
				t.Fatalf("after kill %d: lookup of %v: got %+v, %v, %v, want it", round+1, a, rc, ok, err)
			}
		}
		if err := j.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
}

// floodAndKill runs childFlood, kills it after n acknowledgements and returns
// all it managed to print.
func floodAndKill(t *testing.T, path string, n int) []acked {
	t.Helper()
	cmd := child(t, "flood", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acks []acked
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if a, ok := parseAcked(lines.Text()); ok {
			acks = append(acks, a)
		}
		if len(acks) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatalf("kill: %v", err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child ended by itself (%v), want it killed", cmd.ProcessState)
	}
	if len(acks) < n {
		t.Fatalf("got %d acknowledgements, want %d or more", len(acks), n)
	}
	return acks
}

// readAll reads a room from its first entry to its top.
func readAll(t *testing.T, j journal.Journal, room chat.RoomID) []journal.Entry {
	t.Helper()
	var all []journal.Entry
	for after := uint64(0); ; after = all[len(all)-1].Seq {
		_, es, err := j.Read(t.Context(), room, after, 1000)
		if err != nil {
			t.Fatalf("read %s after %d: %v", room, after, err)
		}
		if len(es) == 0 {
			return all
		}
		all = append(all, es...)
	}
}

// TestSecondProcess opens a file that this process holds.
func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, config(path))
	out, err := child(t, "open", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{path, "another process holds it"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("got %q, want it to say %q", out, want)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := child(t, "open", path).Output(); err != nil || len(out) > 0 {
		t.Errorf("after close: got %q, %v, want the second process to open it", out, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600: messages are nobody else's business", fi.Mode(), err)
	}
}
