//go:build linux || darwin

package child

import "syscall"

func setLimit(resource int, soft, top uint64) error {
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: soft, Max: top})
}
