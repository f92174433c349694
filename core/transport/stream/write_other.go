//go:build !unix

package stream

import "errors"

// canTry is false: elsewhere the drainer writes everything.
const canTry = false

func writeFD(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
