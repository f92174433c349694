package tuning

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Limit is a memory limit of a cgroup. The zero Limit is none.
type Limit struct {
	Bytes int64  // 0 = none
	File  string // where it stands, without the root
}

const (
	maxProcFile = 1 << 20 // a busy container host has a few thousand mounts
	// noLimit is where cgroup v1 begins to mean "none": it writes the largest
	// page-aligned int64.
	noLimit = 1 << 60
)

// MemoryLimit returns the tightest memory limit of the cgroup this process
// belongs to or of one above it, version 1 or 2. All files are looked up below
// root, "/" on a real system. Without cgroups the error is fs.ErrNotExist.
func MemoryLimit(root string) (Limit, error) {
	groups, err := readProc(root, "/proc/self/cgroup")
	if err != nil {
		return Limit{}, err
	}
	mounts, err := readProc(root, "/proc/self/mountinfo")
	if err != nil {
		return Limit{}, err
	}
	var tightest Limit
	for _, m := range parseMounts(mounts) {
		group, ok := groupOf(groups, m.v2)
		if !ok {
			continue
		}
		l, err := m.limit(root, group)
		if err != nil {
			return Limit{}, err
		}
		if l.Bytes > 0 && (tightest.Bytes == 0 || l.Bytes < tightest.Bytes) {
			tightest = l
		}
	}
	return tightest, nil
}

// readProc reads a bounded file.
func readProc(root, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return nil, fmt.Errorf("read cgroup: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProcFile+1))
	if err != nil {
		return nil, fmt.Errorf("read cgroup: %w", err)
	}
	if len(data) > maxProcFile {
		return nil, fmt.Errorf("read cgroup: %s is larger than %d bytes", name, maxProcFile)
	}
	return data, nil
}

// groupOf finds this process's memory cgroup in /proc/self/cgroup, whose lines
// are ID:CONTROLLERS:PATH, with 0 and no controllers for version 2
// (cgroups(7)).
func groupOf(data []byte, v2 bool) (group string, ok bool) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if v2 && parts[0] == "0" && parts[1] == "" ||
			!v2 && slices.Contains(strings.Split(parts[1], ","), "memory") {
			return path.Clean("/" + parts[2]), true
		}
	}
	return "", false
}

// mount is one cgroup hierarchy that counts memory.
type mount struct {
	root  string // the cgroup that is mounted
	point string // where
	v2    bool
}

// parseMounts picks the cgroup mounts out of /proc/self/mountinfo
// (proc_pid_mountinfo(5)): ID PARENT DEV ROOT POINT OPTIONS [FIELDS] - TYPE
// SOURCE SUPEROPTIONS.
func parseMounts(data []byte) []mount {
	var mounts []mount
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxProcFile)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 {
			continue
		}
		m := mount{root: unescape(l[3]), point: unescape(l[4]), v2: r[0] == "cgroup2"}
		if m.v2 || r[0] == "cgroup" && slices.Contains(strings.Split(r[2], ","), "memory") {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// unescape undoes the octal escapes of mountinfo: \040 is a space.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// limit walks from the process's cgroup up to the mount point: a limit binds
// every cgroup below it. A cgroup that is not below the mounted one (another
// namespace) is looked for at the mount point itself.
func (m mount) limit(root, group string) (Limit, error) {
	rel := "/"
	if m.root == "/" {
		rel = group
	} else if rest, below := strings.CutPrefix(group, m.root); below && (rest == "" || rest[0] == '/') {
		rel = path.Clean("/" + rest)
	}
	name := "memory.limit_in_bytes"
	if m.v2 {
		name = "memory.max"
	}
	var tightest Limit
	for {
		file := path.Join(m.point, rel, name)
		n, err := readLimit(filepath.Join(root, file))
		if err != nil {
			return Limit{}, err
		}
		if n > 0 && (tightest.Bytes == 0 || n < tightest.Bytes) {
			tightest = Limit{Bytes: n, File: file}
		}
		if rel == "/" {
			return tightest, nil
		}
		rel = path.Dir(rel)
	}
}

// readLimit reads one limit; 0 is none. The root cgroup of version 2 and
// cgroups without the memory controller have no such file.
func readLimit(file string) (int64, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read memory limit: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64)) // a number has at most 20 digits
	if err != nil {
		return 0, fmt.Errorf("read memory limit: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory limit %s: %w", file, err)
	}
	if n >= noLimit {
		return 0, nil
	}
	return int64(n), nil
}
