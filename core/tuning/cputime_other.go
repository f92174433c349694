//go:build !unix

package tuning

import "time"

// cpuTime is not known here, so the GOMAXPROCS controller does nothing.
func cpuTime() (used time.Duration, ok bool) { return 0, false }
