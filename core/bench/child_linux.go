package bench

import "syscall"

// childAttr keeps Ctrl-C of a terminal from a child, which the benchmark ends
// itself, and ends it should the benchmark be killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
