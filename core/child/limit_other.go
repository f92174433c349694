//go:build !(linux || darwin || freebsd)

package child

import "os/exec"

// limitProcess bounds nothing here: only the wall clock limits a child.
func limitProcess(Limits) error { return nil }

func ownGroup(*exec.Cmd) {}

// granted cannot tell here, and no child has a limit of memory.
func granted(uint64) bool { return false }
