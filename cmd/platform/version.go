package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// began is when this package was initialised; see sinceExec.
var began = time.Now()

func versionText() string {
	return fmt.Sprintf("parley %s (%s, %s/%s)", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// sinceExec returns how long ago the process was started. Linux knows it to
// 10 ms (proc_pid_stat(5), field 22); elsewhere the start of main stands in.
func sinceExec() time.Duration {
	own := time.Since(began)
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return own
	}
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return own
	}
	_, rest, ok := strings.Cut(string(stat), ") ") // the name may hold spaces
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return own
	}
	const ticks = 100 // USER_HZ, fixed for user space on Linux
	start, err1 := strconv.ParseFloat(fields[19], 64)
	now, err2 := strconv.ParseFloat(strings.Fields(string(up))[0], 64)
	if err1 != nil || err2 != nil {
		return own
	}
	return max(own, time.Duration((now-start/ticks)*float64(time.Second)))
}
