//go:build !linux

package tuning

// QuietMonitor does something on Linux only.
func QuietMonitor() {}
