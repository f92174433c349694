package tuning

import (
	"os"
	"slices"
	"strings"
	"syscall"
)

// monitorSetting is a GODEBUG that keeps the runtime's monitor thread from
// sleeping until it is called, by asking for a trace of the scheduler every so
// many milliseconds: as many as there can be, which are 24.8 days.
const monitorSetting = "schedtrace=2147483647"

// QuietMonitor makes the Go runtime's monitor thread sleep by the clock. Left
// alone it sleeps until it is called whenever nothing runs, and the next
// system call calls it (sysmon, runtime/proc.go). A server that is a third
// busy falls idle thousands of times a second, and then a fifth of its CPU
// goes into waking that thread: docs/decisions/0026-a-quiet-scheduler.md.
//
// The setting is read once, when a process begins: so the first call executes
// the program anew in this very process (execve(2)) and does not return. Call it
// before anything is opened or started. In the new program it takes the setting
// back out of the environment, for the sake of child processes, and returns; so
// it does, having done nothing, where GODEBUG says what schedtrace is to be, and
// where the program cannot be executed again.
func QuietMonitor() {
	var settings []string
	if was := os.Getenv("GODEBUG"); was != "" {
		settings = strings.Split(was, ",")
	}
	if i := slices.Index(settings, monitorSetting); i >= 0 {
		if settings = slices.Delete(settings, i, i+1); len(settings) == 0 {
			_ = os.Unsetenv("GODEBUG") // never fails
		} else {
			_ = os.Setenv("GODEBUG", strings.Join(settings, ",")) // fails for strange names only
		}
		return
	}
	if slices.ContainsFunc(settings, func(s string) bool { return strings.HasPrefix(s, "schedtrace=") }) {
		return
	}
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GODEBUG=") })
	env = append(env, "GODEBUG="+strings.Join(append(settings, monitorSetting), ","))
	again(env) // the server runs without as well
}

// again executes the program anew, by its path, after which the kernel names the
// process. It returns where that cannot be.
func again(env []string) {
	var files syscall.Rlimit
	known := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) == nil
	if path, err := os.Executable(); err == nil {
		_ = syscall.Exec(path, os.Args, env)
	}
	_ = syscall.Exec("/proc/self/exe", os.Args, env) // the file has moved, or been replaced
	if known {                                       // Exec takes back what Go has raised at the start, for the next program's sake
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files)
	}
}
