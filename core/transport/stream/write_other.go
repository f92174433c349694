//go:build !unix

package stream

import (
	"errors"
	"syscall"
)

// canTry is false: elsewhere the drainer writes everything.
const canTry = false

func writeFD(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

// SetSendBuffer answers errors.ErrUnsupported.
func SetSendBuffer(syscall.RawConn, int) error { return errors.ErrUnsupported }
