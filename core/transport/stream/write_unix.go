//go:build unix

package stream

import (
	"fmt"
	"syscall"
)

// canTry says that a socket can be written to without waiting.
const canTry = true

// SetSendBuffer bounds what the kernel takes from us for a connection
// (SO_SNDBUF, socket(7): Linux doubles it), or for all that a listening socket
// accepts; 0 leaves it to the kernel.
func SetSendBuffer(rc syscall.RawConn, bytes int) error {
	if bytes <= 0 {
		return nil
	}
	var failed error
	err := rc.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, bytes)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("set the send buffer: %w", err)
	}
	return nil
}

func writeFD(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
