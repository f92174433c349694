//go:build !linux

package load

import (
	"context"
	"errors"
	"io"
	"time"
)

// Serve needs epoll: see the Linux version.
func Serve(context.Context, io.Reader, io.Writer) error {
	return errors.New("the benchmark's clients need Linux")
}

var began = time.Now()

// Monotonic is a clock of this process alone.
func Monotonic() int64 { return int64(time.Since(began)) }
