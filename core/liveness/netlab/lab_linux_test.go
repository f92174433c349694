package netlab_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/liveness/netlab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

func newLab(t *testing.T) *netlab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root: run CI as root")
		}
		t.Skip("network namespaces need root")
	}
	l, err := netlab.New(7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// pair connects from B to A.
func pair(t *testing.T, l *netlab.Lab) (atA, atB net.Conn) {
	t.Helper()
	ln, err := l.A.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	atB, err = l.B.Dial(t.Context(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if atA, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { atA.Close(); atB.Close() })
	_ = atA.SetDeadline(time.Now().Add(patience))
	_ = atB.SetDeadline(time.Now().Add(patience))
	return atA, atB
}

// echo sends a line from one end to the other.
func echo(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := fmt.Fprintln(from, text); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(to).ReadString('\n'); err != nil || got != text+"\n" {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

func TestLinkCarriesDelaysLosesAndHolds(t *testing.T) {
	l := newLab(t)
	a, b := pair(t, l)
	echo(t, a, b, "there")
	echo(t, b, a, "and back")

	l.Both(netlab.Path{Delay: 30 * time.Millisecond})
	began := time.Now()
	echo(t, a, b, "slowly")
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("took %v, want at least the delay", took)
	}
	l.Both(netlab.Path{Loss: 0.3})
	for i := range 20 { // TCP repairs it
		echo(t, a, b, fmt.Sprint("lossy ", i))
	}
	l.Both(netlab.Path{Spike: 1, SpikeMin: 50 * time.Millisecond, SpikeMax: 60 * time.Millisecond})
	began = time.Now()
	echo(t, b, a, "in fits")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("took %v, want at least the spike", took)
	}
	toB, toA := l.Counts()
	if toB.Carried == 0 || toA.Carried == 0 || toB.Lost+toA.Lost == 0 || toB.Spiked+toA.Spiked == 0 {
		t.Errorf("got %+v and %+v, want some of each", toB, toA)
	}
}

func TestCutAndForgottenFlowsAreSilent(t *testing.T) {
	l := newLab(t)
	a, b := pair(t, l)
	other, far := pair(t, l)
	l.Both(netlab.Path{Forgotten: map[netip.AddrPort]bool{netip.MustParseAddrPort(b.LocalAddr().String()): true}})
	if _, err := b.Write([]byte("lost\n")); err != nil {
		t.Fatalf("writing into nothing must look like success: %v", err)
	}
	echo(t, far, other, "the other flow lives")
	_ = a.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := a.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes of a forgotten flow", n)
	}
	l.Both(netlab.Path{})
	_ = a.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, 5)
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "lost\n" {
		t.Errorf("after the path is back: got %q, %v, want what was sent", got, err)
	}
	l.AtoB(netlab.Path{Down: true})
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = b.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := b.Read(got); err == nil {
		t.Error("something came through a cut link")
	}
}

func TestBoxForgetsAConnection(t *testing.T) {
	l := newLab(t)
	if len(l.Dropped()) != 0 {
		t.Errorf("without a box: got %v dropped", l.Dropped())
	}
	l.Behind(netlab.Box{})
	a, b := pair(t, l)
	echo(t, a, b, "there")
	echo(t, b, a, "and back")
	l.Behind(netlab.Box{Ageing: time.Nanosecond}) // knows none, and forgets at once what it learns
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = a.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := a.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes of a connection without a state", n)
	}
}

func TestProcessesAndRulesLiveInside(t *testing.T) {
	l := newLab(t)
	a, b := pair(t, l)
	cmd := exec.CommandContext(t.Context(), "cat", "/proc/net/dev")
	var out strings.Builder
	cmd.Stdout = &out
	if err := l.B.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "lab0") {
		t.Errorf("got %q, %v, want the lab's interface", out.String(), err)
	}
	if err := l.B.NFT(t.Context(), "add table inet lab\nadd chain inet lab in { type filter hook input priority 0 ; }\nadd rule inet lab in drop\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = b.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("something came through the rule")
	}
	if err := l.A.NFT(t.Context(), "no such command"); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("got %v, want what nft says", err)
	}
	l.Close()
	l.Close()
}

// TestDialsDoNotWaitForEachOther has one dial that gets no answer.
func TestDialsDoNotWaitForEachOther(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan error, 1)
	go func() {
		_, err := l.B.Dial(ctx, "10.77.0.99:80") // nobody has this address
		stuck <- err
	}()
	pair(t, l)
	cancel()
	if err := <-stuck; err == nil {
		t.Error("got a connection to nobody")
	}
	l.Close()
	if _, err := l.B.Dial(t.Context(), "10.77.0.1:80"); err == nil {
		t.Error("got a connection from a closed lab")
	}
}
