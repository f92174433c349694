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
	var tightest Limit
	err := eachGroup(root, "memory", func(dir string, v2 bool) error {
		file := path.Join(dir, "memory.limit_in_bytes")
		if v2 {
			file = path.Join(dir, "memory.max")
		}
		n, err := readLimit(filepath.Join(root, file))
		if err != nil {
			return err
		}
		if n > 0 && (tightest.Bytes == 0 || n < tightest.Bytes) {
			tightest = Limit{Bytes: n, File: file}
		}
		return nil
	})
	if err != nil {
		return Limit{}, err
	}
	return tightest, nil
}

// eachGroup calls visit with the folder of this process's cgroup in each
// hierarchy that has the controller, and of every cgroup above it: a limit
// binds every cgroup below it. The folders are named without root.
func eachGroup(root, controller string, visit func(dir string, v2 bool) error) error {
	groups, err := readProc(root, "/proc/self/cgroup")
	if err != nil {
		return err
	}
	mounts, err := readProc(root, "/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range parseMounts(mounts, controller) {
		group, ok := groupOf(groups, controller, m.v2)
		if !ok {
			continue
		}
		for rel := m.relative(group); ; rel = path.Dir(rel) {
			if err := visit(path.Join(m.point, rel), m.v2); err != nil {
				return err
			}
			if rel == "/" {
				break
			}
		}
	}
	return nil
}

// readProc reads a bounded file of the system.
func readProc(root, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return nil, fmt.Errorf("read system file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProcFile+1))
	if err != nil {
		return nil, fmt.Errorf("read system file: %w", err)
	}
	if len(data) > maxProcFile {
		return nil, fmt.Errorf("read system file: %s is larger than %d bytes", name, maxProcFile)
	}
	return data, nil
}

// groupOf finds this process's cgroup of a controller in /proc/self/cgroup, whose lines
// are ID:CONTROLLERS:PATH, with 0 and no controllers for version 2
// (cgroups(7)).
func groupOf(data []byte, controller string, v2 bool) (group string, ok bool) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if v2 && parts[0] == "0" && parts[1] == "" ||
			!v2 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return path.Clean("/" + parts[2]), true
		}
	}
	return "", false
}

// mount is one cgroup hierarchy.
type mount struct {
	root  string // the cgroup that is mounted
	point string // where
	v2    bool
}

// parseMounts picks the mounts of version 2 and of one controller out of /proc/self/mountinfo
// (proc_pid_mountinfo(5)): ID PARENT DEV ROOT POINT OPTIONS [FIELDS] - TYPE
// SOURCE SUPEROPTIONS.
func parseMounts(data []byte, controller string) []mount {
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
		if m.v2 || r[0] == "cgroup" && slices.Contains(strings.Split(r[2], ","), controller) {
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

// relative returns where a cgroup lies below the mount point. A cgroup that is
// not below the mounted one (another namespace) is looked for at the mount
// point itself.
func (m mount) relative(group string) string {
	if m.root == "/" {
		return group
	}
	if rest, below := strings.CutPrefix(group, m.root); below && (rest == "" || rest[0] == '/') {
		return path.Clean("/" + rest)
	}
	return "/"
}

// readLimit reads one limit; 0 is none. The root cgroup of version 2 and
// cgroups without the memory controller have no such file.
func readLimit(file string) (int64, error) {
	text, err := readShort(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && text == "max" {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read memory limit: %w", err)
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

// readShort reads a file of one short line, such as one or two numbers.
func readShort(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64)) // two numbers have at most 41 characters
	return strings.TrimSpace(string(data)), err
}
