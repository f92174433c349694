package tuning_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/tuning"
)

// tree writes files below a new root.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		write(t, root, name, content)
	}
	return root
}

func write(t testing.TB, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

const (
	mountV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	mountV1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
		"35 31 0:32 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n"
	noneV1 = "9223372036854771712\n"
)

func TestMemoryLimit(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  tuning.Limit
	}{
		{"v2 in a namespace", map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"proc/self/mountinfo":      mountV2,
			"sys/fs/cgroup/memory.max": "536870912\n",
		}, tuning.Limit{Bytes: 512 << 20, File: "/sys/fs/cgroup/memory.max"}},
		{"v2 of a service, the slice is tighter", map[string]string{
			"proc/self/cgroup":    "0::/system.slice/parley.service\n",
			"proc/self/mountinfo": mountV2,
			"sys/fs/cgroup/system.slice/parley.service/memory.max": "1073741824\n",
			"sys/fs/cgroup/system.slice/memory.max":                "536870912\n",
		}, tuning.Limit{Bytes: 512 << 20, File: "/sys/fs/cgroup/system.slice/memory.max"}},
		{"v2 without a limit", map[string]string{
			"proc/self/cgroup":           "0::/a\n",
			"proc/self/mountinfo":        mountV2,
			"sys/fs/cgroup/a/memory.max": "max\n",
		}, tuning.Limit{}},
		{"v2 without the memory controller", map[string]string{
			"proc/self/cgroup":    "0::/a\n",
			"proc/self/mountinfo": mountV2,
		}, tuning.Limit{}},
		{"v1", map[string]string{
			"proc/self/cgroup":                                   "4:memory:/app\n3:cpu,cpuacct:/other\n",
			"proc/self/mountinfo":                                mountV1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes":         noneV1,
			"sys/fs/cgroup/memory/app/memory.limit_in_bytes":     "104857600\n",
			"sys/fs/cgroup/memory/app/sub/memory.limit_in_bytes": "1\n", // not ours
		}, tuning.Limit{Bytes: 100 << 20, File: "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"}},
		{"v1 without a limit", map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"proc/self/mountinfo":                        mountV1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": noneV1,
		}, tuning.Limit{}},
		{"v1 in a container without a namespace", map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/abc\n",
			"proc/self/mountinfo":                        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "104857600\n",
		}, tuning.Limit{Bytes: 100 << 20, File: "/sys/fs/cgroup/memory/memory.limit_in_bytes"}},
		{"v1 below the mounted group", map[string]string{
			"proc/self/cgroup":                             "4:memory:/docker/abc/x\n",
			"proc/self/mountinfo":                          "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "104857600\n",
		}, tuning.Limit{Bytes: 100 << 20, File: "/sys/fs/cgroup/memory/x/memory.limit_in_bytes"}},
		{"a group of another namespace", map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/abcdef\n",
			"proc/self/mountinfo":                        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "7000000\n",
		}, tuning.Limit{Bytes: 7_000_000, File: "/sys/fs/cgroup/memory/memory.limit_in_bytes"}},
		{"hybrid: v1 counts memory", map[string]string{
			"proc/self/cgroup":                               "4:memory:/app\n0::/\n",
			"proc/self/mountinfo":                            mountV1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/memory/app/memory.limit_in_bytes": "104857600\n",
		}, tuning.Limit{Bytes: 100 << 20, File: "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"}},
		{"path with a space and lines that make no sense", map[string]string{
			"proc/self/cgroup":         "0::/a b\nnonsense\n",
			"proc/self/mountinfo":      "nonsense\n1 2 - x\n30 23 0:26 / /mnt/c\\040g\\9 rw - cgroup2 none rw\n",
			`mnt/c g\9/a b/memory.max`: "2000000\n",
		}, tuning.Limit{Bytes: 2_000_000, File: `/mnt/c g\9/a b/memory.max`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tuning.MemoryLimit(tree(t, tt.files))
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestMemoryLimitErrors(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no cgroup file", nil, fs.ErrNotExist.Error()},
		{"no mountinfo", map[string]string{"proc/self/cgroup": "0::/\n"}, "mountinfo"},
		{"cgroup is a folder", map[string]string{"proc/self/cgroup/x": ""}, "is a directory"},
		{"not a number", map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max": "plenty\n",
		}, "invalid syntax"},
		{"limit is a folder", map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max/x": "",
		}, "is a directory"},
		{"limit below a file", map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/a": "",
		}, "not a directory"},
		{"huge", map[string]string{"proc/self/cgroup": strings.Repeat("x", 1<<20+1)}, "larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tuning.MemoryLimit(tree(t, tt.files))
			if err == nil || !(strings.Contains(err.Error(), tt.want) || errors.Is(err, fs.ErrNotExist)) {
				t.Errorf("got %+v, %v, want an error with %q", got, err, tt.want)
			}
		})
	}
}

func TestMemoryLimitHere(t *testing.T) {
	if l, err := tuning.MemoryLimit("/"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %+v, %v, want this machine's limit or none", l, err)
	}
}

// FuzzMemoryLimit: no content of the files panics or gives a negative limit.
func FuzzMemoryLimit(f *testing.F) {
	f.Add("0::/a\n", mountV2, "5\n")
	f.Add("4:memory:/a\n", mountV1, noneV1)
	f.Add("0::/../..\n", "30 23 0:26 / /sys\\0 rw - cgroup2 x y\n", "max")
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, groups, mounts, limit string) {
		write(t, root, "proc/self/cgroup", groups)
		write(t, root, "proc/self/mountinfo", mounts)
		write(t, root, "sys/fs/cgroup/memory.max", limit)
		if l, err := tuning.MemoryLimit(root); l.Bytes < 0 || (err != nil && l != tuning.Limit{}) {
			t.Fatalf("got %+v, %v", l, err)
		}
	})
}
