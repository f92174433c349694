package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Quota is how much CPU time a cgroup may use. The zero Quota is no bound.
type Quota struct {
	CPUs float64 `json:"cpus"` // CPU seconds a second; 0 = no bound
	File string  `json:"file"` // where it stands, without the root
}

// CPUQuota returns the tightest CPU quota of the cgroup this process belongs to
// or of one above it, version 1 or 2: a quota binds all cgroups below it
// (Documentation/admin-guide/cgroup-v2.rst, "cpu.max"; scheduler/sched-bwc.rst
// for version 1). Neither automaxprocs 1.6 nor Go 1.26 looks above the
// process's own cgroup. Files are looked up below root. Without cgroups the
// error is fs.ErrNotExist.
func CPUQuota(root string) (Quota, error) {
	var tightest Quota
	err := eachGroup(root, "cpu", func(dir string, v2 bool) error {
		q, err := readQuota(root, dir, v2)
		if err != nil {
			return err
		}
		if q.CPUs > 0 && (tightest.CPUs == 0 || q.CPUs < tightest.CPUs) {
			tightest = q
		}
		return nil
	})
	if err != nil {
		return Quota{}, err
	}
	return tightest, nil
}

// readQuota reads the quota of one cgroup. The root cgroup and cgroups without
// the cpu controller have no such file.
func readQuota(root, dir string, v2 bool) (Quota, error) {
	file := path.Join(dir, "cpu.cfs_quota_us")
	if v2 {
		file = path.Join(dir, "cpu.max")
	}
	text, err := readShort(filepath.Join(root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return Quota{}, nil
	}
	if err != nil {
		return Quota{}, fmt.Errorf("read CPU quota: %w", err)
	}
	fields := strings.Fields(text)
	if !v2 {
		period, err := readShort(filepath.Join(root, dir, "cpu.cfs_period_us"))
		if err != nil {
			return Quota{}, fmt.Errorf("read CPU quota: %w", err)
		}
		fields = append(fields, period)
	}
	if len(fields) != 2 {
		return Quota{}, fmt.Errorf("read CPU quota %s: got %q, want a quota and a period", file, text)
	}
	if fields[0] == "max" || fields[0] == "-1" {
		return Quota{}, nil
	}
	quota, err1 := strconv.ParseUint(fields[0], 10, 63)
	period, err2 := strconv.ParseUint(fields[1], 10, 63)
	if err := errors.Join(err1, err2); err != nil || period == 0 || quota == 0 {
		return Quota{}, fmt.Errorf("read CPU quota %s: got %q, want two numbers above 0", file, text)
	}
	return Quota{CPUs: float64(quota) / float64(period), File: file}, nil
}
