package child

import "syscall"

func setLimit(resource int, soft, top uint64) error {
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: int64(soft), Max: int64(top)}) // signed on FreeBSD
}
