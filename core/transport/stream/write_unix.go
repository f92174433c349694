//go:build unix

package stream

import "syscall"

// canTry says that a socket can be written to without waiting.
const canTry = true

func writeFD(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
