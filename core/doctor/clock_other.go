//go:build !linux

package doctor

import "errors"

func clock() Check { return unknown("clock", errors.New("only Linux is asked")) }
