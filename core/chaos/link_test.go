package chaos

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"

	"parley/core/e2e/rig"
)

// link is the network between some nodes and a server: a toxiproxy. Its
// methods belong to the test's goroutine.
type link struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
	deaf  int // of deafened
}

// newLink starts a link to the server at addr.
func newLink(t *testing.T, addr string) *link {
	t.Helper()
	l := &link{t: t, deaf: int(lastDeaf.Add(1)) - 1}
	if l.deaf >= len(deafened) {
		t.Fatalf("more than %d links", len(deafened))
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l.proxy = toxiproxy.NewProxy(server, "link", rig.FreePorts(t, 1)[0], addr)
	l.open()
	t.Cleanup(l.proxy.Stop)
	l.add("deaf", "pubsub_deaf", "downstream", fmt.Sprintf(`{"link":%d}`, l.deaf))
	return l
}

func (l *link) open() {
	l.t.Helper()
	if err := l.proxy.Start(); err != nil {
		l.t.Fatalf("open the link: %v", err)
	}
}

// URL is what a node calls the server behind the link.
func (l *link) URL() string { return "redis://" + l.Addr() }

// Addr is the link's own host:port.
func (l *link) Addr() string { return l.proxy.Listen }

func (l *link) add(name, kind, stream, attributes string) {
	l.t.Helper()
	toxic := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":%s}`, name, kind, stream, attributes)
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		l.t.Fatalf("add %s to the link: %v", toxic, err)
	}
}

func (l *link) remove(names ...string) {
	l.t.Helper()
	for _, name := range names {
		if err := l.proxy.Toxics.RemoveToxic(l.t.Context(), name); err != nil {
			l.t.Fatalf("remove %s from the link: %v", name, err)
		}
	}
}

// cut lets nothing through in either direction, on old and new connections,
// and closes none: the network is gone.
func (l *link) cut() {
	l.t.Helper()
	l.add("cut up", "timeout", "upstream", `{"timeout":0}`)
	l.add("cut down", "timeout", "downstream", `{"timeout":0}`)
}

// mend ends what cut began; what was open is closed.
func (l *link) mend() {
	l.t.Helper()
	l.remove("cut up", "cut down")
}

// mute lets requests through and no answers: what the nodes ask for happens
// and they never learn it.
func (l *link) mute() {
	l.t.Helper()
	l.add("mute", "timeout", "downstream", `{"timeout":0}`)
}

func (l *link) unmute() {
	l.t.Helper()
	l.remove("mute")
}

// slow delays every answer.
func (l *link) slow(by time.Duration) {
	l.t.Helper()
	l.add("slow", "latency", "downstream", fmt.Sprintf(`{"latency":%d}`, by.Milliseconds()))
}

func (l *link) quick() {
	l.t.Helper()
	l.remove("slow")
}

// close closes what is open and refuses what comes, until openTo.
func (l *link) close() { l.proxy.Stop() }

// openTo leads a closed link to another server.
func (l *link) openTo(addr string) {
	l.t.Helper()
	l.proxy.Upstream = addr
	l.open()
}

// deafen swallows, from now on, what the server says on the pub/sub links that
// are open at this moment. They stay open, and new ones work.
func (l *link) deafen() { deafened[l.deaf].Add(1) }

// deafened counts, for each link of the process, how often it was deafened. A
// toxic is configured by JSON, so it finds its counter by number.
var (
	deafened [1024]atomic.Int64
	lastDeaf atomic.Int64
)

// pubsubDeaf is a toxic: the black hole that only pub/sub links fall into.
type pubsubDeaf struct {
	Link int `json:"link"`
}

// deafState is what the toxic knows of one connection.
type deafState struct {
	born   int64 // the link's count when the connection was made
	pubsub bool
}

func init() { toxics.Register("pubsub_deaf", new(pubsubDeaf)) }

// NewState implements toxics.StatefulToxic.
func (d *pubsubDeaf) NewState() any { return &deafState{born: deafened[d.Link].Load()} }

// pushes begin what only a pub/sub link carries.
var pushes = [][]byte{[]byte("\r\nsubscribe\r\n"), []byte("\r\nmessage\r\n"), []byte("\r\nssubscribe\r\n"), []byte("\r\nsmessage\r\n")}

// Pipe implements toxics.Toxic.
func (d *pubsubDeaf) Pipe(stub *toxics.ToxicStub) {
	state := stub.State.(*deafState)
	for {
		select {
		case <-stub.Interrupt:
			return
		case c := <-stub.Input:
			if c == nil {
				stub.Close()
				return
			}
			for _, push := range pushes {
				state.pubsub = state.pubsub || bytes.Contains(c.Data, push)
			}
			if state.pubsub && deafened[d.Link].Load() != state.born {
				continue // swallowed
			}
			stub.Output <- c
		}
	}
}
