package proc

import (
	"os"
	"testing"
	"time"
)

func TestOfThisProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := Of(pid)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<20)
	for until := before.CPU + 20*time.Millisecond; ; {
		for i := range block {
			block[i]++
		}
		now, err := Of(pid)
		if err != nil {
			t.Fatal(err)
		}
		if now.CPU >= until {
			if now.RSS < before.RSS+32<<20 {
				t.Errorf("got RSS %d after touching 64 MiB, %d before", now.RSS, before.RSS)
			}
			break
		}
	}
	two, err := Sum([]int{pid, pid})
	if err != nil || two.RSS < 2*before.RSS || two.CPU < 2*before.CPU {
		t.Errorf("got %+v, %v for the process twice, want at least twice %+v", two, err, before)
	}
}

func TestNoSuchProcess(t *testing.T) {
	const none = 1 << 30 // beyond the kernel's largest pid
	if u, err := Of(none); err == nil {
		t.Errorf("got %+v, want an error", u)
	}
	if u, err := Sum([]int{os.Getpid(), none}); err == nil {
		t.Errorf("got %+v, want an error", u)
	}
}

func TestSockets(t *testing.T) {
	if _, err := ReadSockets(); err != nil {
		t.Error(err)
	}
	s, err := parseSockstat([]byte("sockets: used 300\nTCP: inuse 7 orphan 0 tw 2 alloc 9 mem 3\nUDP: inuse 1 mem 0\n"))
	if want := (Sockets{TCP: 7, Buffer: 3 * int64(os.Getpagesize())}); err != nil || s != want {
		t.Errorf("got %+v, %v, want %+v", s, err, want)
	}
	for name, text := range map[string]string{"empty": "", "no TCP": "UDP: inuse 1\n", "no number": "TCP: inuse many\n"} {
		if s, err := parseSockstat([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, s)
		}
	}
	if v, err := field([]byte("Name:\tx\nVmRSS:\t  1234 kB\n"), "VmRSS:"); err != nil || v != 1234 {
		t.Errorf("got %d, %v, want 1234", v, err)
	}
	if v, err := field([]byte("VmRSS: many kB\n"), "VmRSS:"); err == nil {
		t.Errorf("got %d, want an error", v)
	}
}
