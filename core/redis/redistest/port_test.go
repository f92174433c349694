//go:build unix

package redistest

import (
	"fmt"
	"net"
	"testing"
)

// A port stays with who got it, before there is a server and after it has ended.
func TestAPortIsKept(t *testing.T) {
	const row = 3
	first := FreePorts(t, firstPort, endPort, row)
	nobodyElse := func(when string) {
		t.Helper()
		for port := first; port < first+row; port++ {
			if _, err := hold(port); err == nil {
				t.Errorf("%s: port %d was given again", when, port)
			}
		}
	}
	nobodyElse("before the server starts")
	for range 2 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first))
		if err != nil {
			t.Fatal(err)
		}
		nobodyElse("while it runs")
		l.Close()
	}
	nobodyElse("after its end")
}
