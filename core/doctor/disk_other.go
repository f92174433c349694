//go:build !linux

package doctor

import (
	"errors"
	"os"
)

func dataSync(f *os.File) error { return f.Sync() }

func statVolume(string) (volume, error) { return volume{}, errors.ErrUnsupported }
