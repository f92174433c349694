//go:build !linux

package liveness

import (
	"errors"
	"syscall"
)

// ReadBack answers errors.ErrUnsupported: only Linux is asked.
func ReadBack(syscall.RawConn) (Effective, error) { return Effective{}, errors.ErrUnsupported }
