//go:build !linux

package liveness

import (
	"errors"
	"syscall"
	"time"
)

// SetUserTimeout answers errors.ErrUnsupported: only Linux has this option.
func SetUserTimeout(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }
