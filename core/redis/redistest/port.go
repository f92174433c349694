//go:build unix

package redistest

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
)

// Ports of servers started here. They lie below those that the kernel gives to
// outgoing connections (32768 and up by default): a client that dials a server
// which is down could otherwise be given the server's own port, connect to
// itself and keep the server out. They lie above those of core/e2e/rig.
const firstPort, endPort = 22000, 32000

// FreePorts returns the first of so many loopback ports in a row, from first on
// and below end, that nobody has, and keeps them for this process until it ends:
// no other call gets them, here or in a test that runs beside, also while the
// server they are for is down. Only who asks here respects that.
func FreePorts(t testing.TB, first, end, row int) int {
	t.Helper()
	var err error
	for range 1000 {
		port := first + rand.IntN(end-first-row+1)
		var held []int
		for i := range row {
			fd, holdErr := hold(port + i)
			if err = holdErr; err != nil {
				break
			}
			held = append(held, fd)
		}
		if err == nil {
			return port
		}
		for _, fd := range held {
			_ = syscall.Close(fd)
		}
	}
	t.Fatalf("find %d free ports: %v", row, err)
	return 0
}

// hold binds a socket to a port that has none, and does not listen. Afterwards a
// server that sets SO_REUSEADDR, as they all do, can listen there; another call
// does not, and fails (socket(7)).
func hold(port int) (fd int, err error) {
	syscall.ForkLock.RLock()
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return 0, fmt.Errorf("bind to port %d: %w", port, err)
	}
	return fd, nil
}
