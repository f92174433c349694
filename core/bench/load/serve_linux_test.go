package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inProcess is a Start that runs Serve on a goroutine.
func inProcess(ctx context.Context) (Pipe, error) {
	orders, toOrders := io.Pipe()
	return serveOrders(ctx, orders, toOrders)
}

// likeStdin is inProcess with orders whose pending read no Close ends, as a
// blocking pipe on standard input.
func likeStdin(ctx context.Context) (Pipe, error) {
	orders, toOrders := io.Pipe()
	return serveOrders(ctx, struct{ io.Reader }{orders}, toOrders)
}

func serveOrders(ctx context.Context, in io.Reader, toOrders io.WriteCloser) (Pipe, error) {
	fromReports, reports := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends when the orders do
		err := Serve(ctx, in, reports)
		_ = reports.Close()
		done <- err
	}()
	return Pipe{Orders: toOrders, Reports: fromReports, Wait: func() error { return <-done }}, nil
}

// specs are a process of three members and one of a publisher.
func specs(addr string) []Spec {
	base := Spec{Server: addr, Path: "/v1/ws", Run: "t", RoomSize: 3, Rooms: 1, TextBytes: 100, Parallel: 2}
	members, publishers := base, base
	members.Members, members.Bind = 3, "127.0.0.3"
	publishers.Publishers = 1
	return []Spec{members, publishers}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// quiet is how long nothing comes where something is lost: longer than this
// process stands still on a busy machine, which would be taken for a loss.
const quiet = 2 * time.Second

// runFleet connects, sends and returns what was seen.
func runFleet(t *testing.T, specs []Spec, tr Traffic) (connected, all *Stats) {
	t.Helper()
	ctx := within(t)
	f, err := NewFleet(ctx, specs, inProcess)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if connected, err = f.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	now := Monotonic()
	tr.From, tr.Measure, tr.Until = tr.From+now, tr.Measure+now, tr.Until+now
	acked, err := f.Traffic(ctx, tr)
	if err != nil {
		t.Fatal(err)
	}
	if all, err = f.Settle(ctx, acked, quiet); err != nil {
		t.Fatal(err)
	}
	return connected, all
}

// short is an open loop of 40 messages.
var short = Traffic{Rate: 200, Until: int64(200 * time.Millisecond)}

func TestOpenLoop(t *testing.T) {
	s := startTalker(t)
	connected, all := runFleet(t, specs(s.addr), short)
	if connected.Open != 4 || connected.Connect.Count() != 4 {
		t.Errorf("got %d open and %d connect times, want 4", connected.Open, connected.Connect.Count())
	}
	if !all.Faults.None() || all.Answered != 40 || all.Pending != 0 || all.Pings != 3 {
		t.Errorf("got %+v, want 40 answered without a fault, and 3 pings", all)
	}
	if got := all.Delivery.Count(); got > 120 { // fewer, where this machine was too slow to send in time
		t.Errorf("got %d measured deliveries, want at most 120", got)
	}
	if len(all.Seconds) == 0 || all.Bytes == 0 || all.Reads == 0 {
		t.Errorf("got %v, %d bytes, %d reads, want some of each", all.Seconds, all.Bytes, all.Reads)
	}
}

func TestClosedLoop(t *testing.T) {
	s := startTalker(t)
	_, all := runFleet(t, specs(s.addr), Traffic{InFlight: 3, Until: int64(2 * time.Second)})
	if !all.Faults.None() || all.Answered == 0 || all.Pending != 0 || len(all.Errors) > 0 {
		t.Errorf("got %+v, want messages answered without a fault", all)
	}
}

// TestSeededFaults lets the server do wrong to one member, and holds the
// clients to finding exactly that.
func TestSeededFaults(t *testing.T) {
	var kept []byte
	for _, c := range []struct {
		name  string
		fault func(member int, event []byte) [][]byte
		want  Faults
	}{
		{name: "lost", want: Faults{Lost: 1, Holes: 1}, fault: func(m int, e []byte) [][]byte {
			if m == 1 && has(e, 5) {
				return nil
			}
			return [][]byte{e}
		}},
		{name: "duplicate", want: Faults{Duplicate: 1, Holes: 1}, fault: func(m int, e []byte) [][]byte {
			if m == 2 && has(e, 7) {
				return [][]byte{e, e}
			}
			return [][]byte{e}
		}},
		{name: "reordered", want: Faults{Late: 1, Holes: 2}, fault: func(m int, e []byte) [][]byte {
			if m == 0 && has(e, 7) {
				kept = e
				return nil
			}
			if m == 0 && has(e, 8) {
				return [][]byte{e, kept}
			}
			return [][]byte{e}
		}},
		{name: "changed", want: Faults{Differ: 1}, fault: func(m int, e []byte) [][]byte {
			if m == 1 && has(e, 9) {
				return [][]byte{[]byte(strings.Replace(string(e), "river", "RIVER", 1))}
			}
			return [][]byte{e}
		}},
		{name: "foreign", want: Faults{Foreign: 1, Lost: 1}, fault: func(m int, e []byte) [][]byte {
			if m == 1 && has(e, 9) {
				return [][]byte{[]byte(strings.Replace(string(e), "bench 0", "***** 0", 1))}
			}
			return [][]byte{e}
		}},
		{name: "reset", want: Faults{Resets: 1}, fault: func(m int, e []byte) [][]byte {
			if m == 1 && has(e, 9) {
				return [][]byte{[]byte(`{"type":"reset","room":"bench-t-0","seq":0}`), e}
			}
			return [][]byte{e}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startTalker(t)
			s.fault = c.fault
			_, all := runFleet(t, specs(s.addr), short)
			all.Faults.Differ = min(all.Faults.Differ, 1) // whoever is read first is what the others are compared with
			if all.Faults != c.want {
				t.Errorf("got %+v, want %+v", all.Faults, c.want)
			}
		})
	}
}

func TestRefusalsAreCounted(t *testing.T) {
	t.Run("messages", func(t *testing.T) {
		s := startTalker(t)
		n := 0
		s.reply = func(in map[string]any) string {
			if in["type"] != "send" {
				return ""
			}
			if n++; n%4 != 0 {
				return ""
			}
			return fmt.Sprintf(`{"type":"error","id":%q,"code":"overloaded"}`, in["id"])
		}
		_, all := runFleet(t, specs(s.addr), short)
		if all.Errors["overloaded"] != 10 || all.Answered != 30 || all.Faults.Lost != 0 || all.Pending != 0 {
			t.Errorf("got %v, %d answered, %+v: want 10 overloaded, 30 answered, nothing lost", all.Errors, all.Answered, all.Faults)
		}
	})
	t.Run("hello", func(t *testing.T) {
		s := startTalker(t)
		s.reply = func(in map[string]any) string {
			if in["type"] == "hello" && strings.Contains(fmt.Sprint(in["guest"]), "m1") {
				return `{"type":"error","id":"h","code":"name_taken"}`
			}
			return ""
		}
		connected, _ := runFleet(t, specs(s.addr), short)
		if connected.Open != 3 || connected.Refused["refused: name_taken"] != 1 {
			t.Errorf("got %d open, refused %v, want 3 and one name_taken", connected.Open, connected.Refused)
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		s := startTalker(t)
		s.begin = "HTTP/1.1 503 Service Unavailable\r\n\r\n"
		connected, _ := runFleet(t, specs(s.addr)[:1], short)
		if connected.Open != 0 || connected.Refused["upgrade refused: HTTP/1.1 503 Service Unavailable"] != 3 {
			t.Errorf("got %d open, refused %v, want none and 3", connected.Open, connected.Refused)
		}
	})
	t.Run("connect", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		connected, _ := runFleet(t, specs(ln.Addr().String())[:1], short)
		if connected.Refused["connect: connection refused"] != 3 {
			t.Errorf("got %v, want 3 connections refused", connected.Refused)
		}
	})
}

func TestClosesAreCounted(t *testing.T) {
	for name, c := range map[string]struct{ op, payload, want string }{
		"close frame": {payload: "\x0f\xa1", op: "8", want: "close 4001"},
		"no code":     {payload: "", op: "8", want: "close without a code"},
		"binary":      {payload: "x", op: "2", want: "frame with opcode 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startTalker(t)
			s.fault = func(m int, e []byte) [][]byte {
				if m == 0 && has(e, 3) {
					_, _ = s.members[0].Write(frame(c.op[0]-'0', c.payload))
					return nil
				}
				return [][]byte{e}
			}
			_, all := runFleet(t, specs(s.addr), short)
			if all.Closed[c.want] != 1 || all.Open != 3 {
				t.Errorf("got %v and %d open, want one %q and 3", all.Closed, all.Open, c.want)
			}
		})
	}
}

func TestConnectRate(t *testing.T) {
	s := startTalker(t)
	all := specs(s.addr)[:1]
	all[0].ConnectPerSec, all[0].ReceiveBuffer = 20, 32<<10
	began := Monotonic()
	connected, _ := runFleet(t, all, short)
	if connected.Open != 3 || Monotonic()-began < int64(100*time.Millisecond) {
		t.Errorf("got %d connections after %v, want 3, 50 ms apart", connected.Open, time.Duration(Monotonic()-began))
	}
}

func TestServeSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"no spec":       {in: `{"do":"connect"}` + "\n", want: "must be a spec"},
		"nothing":       {in: "", want: "must be a spec"},
		"no JSON":       {in: "hello\n", want: "read an order"},
		"a bad spec":    {in: `{"do":"spec","spec":{"server":"x"}}` + "\n", want: "server"},
		"unknown order": {in: `{"do":"spec","spec":{"server":"127.0.0.1:1","publishers":1,"rooms":1,"parallel":1}}` + "\n" + `{"do":"dance"}` + "\n", want: "dance"},
		"bad traffic":   {in: `{"do":"spec","spec":{"server":"127.0.0.1:1","publishers":1,"rooms":1,"parallel":1}}` + "\n" + `{"do":"traffic","traffic":{"rate":-1}}` + "\n", want: "rate"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := Serve(within(t), strings.NewReader(c.in), &out)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(out.String(), `"is":"failed"`) {
				t.Errorf("got %v and %q, want an error about %q, reported", err, out.String(), c.want)
			}
		})
	}
}

// TestFleetNeedNotWaitForAProcessThatFailed: it has said why, and ends only
// when its orders do.
func TestFleetNeedNotWaitForAProcessThatFailed(t *testing.T) {
	ctx := within(t)
	spec := specs(startTalker(t).addr)[0]
	spec.Bind = "192.0.2.1" // TEST-NET-1, no address of this machine
	f, err := NewFleet(ctx, []Spec{spec}, likeStdin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Connect(ctx); err == nil || !strings.Contains(err.Error(), "connection 0") {
		t.Errorf("got %v, want what the process said", err)
	}
	if err := f.Close(); err == nil {
		t.Error("got no error of the process that failed")
	}
}

func TestFleetSaysWhatIsWrong(t *testing.T) {
	ctx := within(t)
	if _, err := NewFleet(ctx, []Spec{{}}, inProcess); err == nil {
		t.Error("got no error for an empty spec")
	}
	s := startTalker(t)
	failing := func(context.Context) (Pipe, error) { return Pipe{}, io.ErrUnexpectedEOF }
	if _, err := NewFleet(ctx, specs(s.addr), failing); err == nil {
		t.Error("got no error for a process that does not start")
	}
	f, err := NewFleet(ctx, specs(s.addr), inProcess)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Traffic(ctx, Traffic{Rate: -1}); err == nil {
		t.Error("got no error for bad traffic")
	}
	_ = f.procs[0].order(order{Do: "dance"})
	if _, err := f.Connect(ctx); err == nil || !strings.Contains(err.Error(), "dance") {
		t.Errorf("got %v, want what the process said", err)
	}
	if p := f.Progress(); p.Open < 0 {
		t.Errorf("got %+v", p)
	}
	if err := f.Close(); err == nil {
		t.Error("got no error of the process that failed")
	}
	if err := f.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	f, err = NewFleet(ctx, specs(s.addr), inProcess)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := f.Settle(gone, nil, time.Hour); err == nil {
		t.Error("got no error of a cancelled context")
	}
	if err := f.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
