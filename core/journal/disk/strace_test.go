package disk_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSyncBeforeAck watches the system calls of a process that appends and
// then says so. An acknowledgement is allowed only when the message was
// written to the file and an fdatasync of the file, begun after the last
// write to it, has succeeded.
func TestSyncBeforeAck(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("this test needs strace: install it (apt-get install strace, dnf install strace, apk add strace)")
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	cmd := child(t, "steps", filepath.Join(dir, "journal.db"),
		strace, "-f", "-s", "70000", "-e", "trace=write,pwrite64,fdatasync", "-o", trace)
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("strace: %v (output %q); it needs the permission to ptrace its own child", err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	acks, err := checkSyncs(string(text))
	if err != nil {
		t.Error(err)
	}
	if acks != steps {
		t.Errorf("got %d acknowledgements in the trace, want %d", acks, steps)
	}
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((\d+)(.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	ackWrite    = regexp.MustCompile(`^, "ack (\d+)\\n"`)
)

// checkSyncs reads a trace and returns how many acknowledgements are in it,
// and the first that came too early.
func checkSyncs(trace string) (acks int, err error) {
	type call struct {
		name, fd, rest string
		started        int // line
	}
	open := map[string]call{} // unfinished, by thread
	var lastWrite, lastSync int
	wrote := "" // what went to the file since the last acknowledgement
	finish := func(c call, line int, result string) {
		switch c.name {
		case "pwrite64":
			lastWrite = line
			wrote += c.rest
		case "fdatasync":
			if strings.HasSuffix(result, "= 0") && c.started > lastWrite {
				lastSync = line
			}
		}
	}
	for n, line := range strings.Split(trace, "\n") {
		n++ // lines count from 1
		if m := resumedLine.FindStringSubmatch(line); m != nil {
			c := open[m[1]]
			delete(open, m[1])
			finish(c, n, m[3])
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c := call{m[2], m[3], m[4], n}
		if ack := ackWrite.FindStringSubmatch(c.rest); c.name == "write" && c.fd == "1" && ack != nil {
			acks++
			var num int
			fmt.Sscan(ack[1], &num)
			switch {
			case num != acks:
				return acks, fmt.Errorf("line %d: got ack %d, want %d", n, num, acks)
			case !strings.Contains(wrote, stepText(num)):
				return acks, fmt.Errorf("line %d: ack %d before its message was written", n, num)
			case lastSync < lastWrite:
				return acks, fmt.Errorf("line %d: ack %d after a write (line %d) that no fdatasync followed", n, num, lastWrite)
			}
			wrote = ""
		}
		if strings.HasSuffix(line, "<unfinished ...>") {
			if c.name == "pwrite64" {
				lastWrite = n // not covered by a sync that is under way
			}
			open[m[1]] = c
			continue
		}
		finish(c, n, line)
	}
	return acks, nil
}

// TestSyncChecker seeds the faults that the checker is there to find.
func TestSyncChecker(t *testing.T) {
	write := `7 pwrite64(3, "..message-number-001...", 4096, 8192) = 4096` + "\n"
	sync := "7 fdatasync(3) = 0\n"
	meta := `7 pwrite64(3, "meta", 4096, 0) = 4096` + "\n"
	ack := `8 write(1, "ack 1\n", 6) = 6` + "\n"
	for _, c := range []struct {
		name, trace string
		ok          bool
	}{
		{"as it should be", write + sync + meta + sync + ack, true},
		{"sync in two parts", write + sync + meta + "7 fdatasync(3 <unfinished ...>\n" + "7 <... fdatasync resumed>) = 0\n" + ack, true},
		{"no sync", write + meta + ack, false},
		{"no sync of the meta page", write + sync + meta + ack, false},
		{"failed sync", write + sync + meta + "7 fdatasync(3) = -1 EIO (Input/output error)\n" + ack, false},
		{"ack while the sync runs", write + sync + meta + "7 fdatasync(3 <unfinished ...>\n" + ack + "7 <... fdatasync resumed>) = 0\n", false},
		{"sync began before the write ended", write + sync + "7 fdatasync(3 <unfinished ...>\n" + meta + "7 <... fdatasync resumed>) = 0\n" + ack, false},
		{"never written", meta + sync + ack, false},
		{"another's message", strings.ReplaceAll(write, "001", "002") + sync + meta + sync + ack, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			acks, err := checkSyncs(c.trace)
			if (err == nil) != c.ok || acks != 1 {
				t.Errorf("got %d acks, error %v, want 1 and ok %v", acks, err, c.ok)
			}
		})
	}
}
