//go:build !linux

package liveness

import (
	"errors"
	"syscall"
	"time"
)

// Bequeath answers errors.ErrUnsupported: what accepted connections inherit is
// not the same on all systems.
func Bequeath(syscall.RawConn, Config) error { return errors.ErrUnsupported }

// SetUserTimeout answers errors.ErrUnsupported: only Linux has this option.
func SetUserTimeout(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }
