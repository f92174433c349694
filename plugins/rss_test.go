package plugins_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// rss returns this process's resident memory in MB, 0 where the system does
// not tell.
func rss(b testing.TB) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb / 1000
}
