package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/gate"
	"parley/core/wire"
	"parley/policy/decisionlog"
)

const (
	swapTalkers = 4
	swapEvery   = 5 * time.Millisecond // between two messages of one talker, unless an answer takes longer
	tooLong     = 3000                 // bytes: more than any revision allows, less than the server does
)

// swapLoad is clients that send all the time, and what they were answered.
type swapLoad struct {
	t    *testing.T
	seen atomic.Int64 // the highest revision that anybody was told of

	talking sync.WaitGroup
	hush    context.CancelFunc

	mu      sync.Mutex
	answers []answer // each talker's in their order; guarded by mu
}

// answer is what came of one message.
type answer struct {
	talker   int
	room     chat.RoomID
	floor    int64          // seen before the message was sent
	named    int64          // the revision that the answer names; 0: it is an ack
	decision string         // of a refusal, its id
	message  chat.MessageID // of an ack
}

func startSwapLoad(t *testing.T, n *node) *swapLoad {
	l := &swapLoad{t: t}
	var ctx context.Context
	ctx, l.hush = context.WithCancel(t.Context())
	for i := range swapTalkers {
		l.talking.Go(func() { l.talk(ctx, i, n.URL(i)) })
	}
	return l
}

// stop ends the talk and waits. It may be called twice.
func (l *swapLoad) stop() {
	l.hush()
	l.talking.Wait()
}

func (l *swapLoad) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers)
}

// posted are the messages that were acknowledged.
func (l *swapLoad) posted() (ids []chat.MessageID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.answers {
		if a.message != "" {
			ids = append(ids, a.message)
		}
	}
	return ids
}

func (l *swapLoad) talk(ctx context.Context, i int, url string) {
	dialing, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	conn, err := client.Dial(dialing, client.Options{URL: url, Guest: fmt.Sprint("talker", i)})
	if err != nil {
		l.t.Errorf("talker %d: %v", i, err)
		return
	}
	defer conn.Close()
	tick := time.NewTicker(swapEvery)
	defer tick.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := l.say(conn, i, turn); err != nil {
			l.t.Errorf("talker %d, message %d: %v", i, turn, err)
			return
		}
	}
}

// say sends one message, to the rooms in turn, two that any revision from the
// floor on allows and two that are too long for all. An answer by an earlier
// revision would refuse the first two where they are allowed.
func (l *swapLoad) say(conn *client.Conn, i, turn int) error {
	a := answer{talker: i, room: swapRooms[turn%2], floor: l.seen.Load()}
	size := leastBytes + int(a.floor)
	if turn%4 >= 2 {
		size = tooLong
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	ack, err := conn.Send(ctx, a.room, client.NewNonce(), strings.Repeat("x", size))
	if err := a.read(size, ack, err); err != nil {
		return err
	}
	if a.named != 0 && a.named < a.floor {
		return fmt.Errorf("revision %d answers after somebody was told of %d", a.named, a.floor)
	}
	for {
		was := l.seen.Load()
		if a.named <= was || l.seen.CompareAndSwap(was, a.named) {
			break
		}
	}
	l.mu.Lock()
	l.answers = append(l.answers, a)
	l.mu.Unlock()
	return nil
}

// read takes the revision from what the server said to a text of that size.
// Whatever no revision says is a decision that was dropped.
func (a *answer) read(size int, ack *wire.AckEvent, err error) error {
	if err == nil {
		if a.message = ack.MessageID; ack.Outcome != chat.Accepted || a.message == "" {
			return fmt.Errorf("dropped: a message was acknowledged as %+v", ack)
		}
		return nil
	}
	var said *chat.Error
	if !errors.As(err, &said) {
		return fmt.Errorf("dropped: %w", err)
	}
	a.decision = said.Decision
	switch said.Code {
	case chat.CodeDenied:
		if len(said.Reasons) != 1 {
			return fmt.Errorf("dropped: refused with the reasons %+v", said.Reasons)
		}
		var text int64
		_, codeErr := fmt.Sscanf(said.Reasons[0].Code, "revision_%d", &a.named)
		_, textErr := fmt.Sscanf(said.Reasons[0].Text, "Revision %d refuses.", &text)
		if err := errors.Join(codeErr, textErr); err != nil {
			return fmt.Errorf("dropped: refused with the reasons %+v: %w", said.Reasons, err)
		}
		if text != a.named || a.named < 1 || a.room == swapRooms[a.named%2] {
			return fmt.Errorf("mixed: refused in %s with %+v", a.room, said.Reasons)
		}
	case chat.CodeTextTooLong:
		_, rest, _ := strings.Cut(said.Text, "allow you ")
		most := 0
		if _, err := fmt.Sscanf(rest, "%d here", &most); err != nil {
			return fmt.Errorf("dropped: %q: %w", said.Text, err)
		}
		if a.named = int64(most - leastBytes); size <= most || a.named < 1 || a.room != swapRooms[a.named%2] {
			return fmt.Errorf("mixed: %d bytes in %s are refused with %q", size, a.room, said.Text)
		}
	default:
		return fmt.Errorf("dropped: no revision says this: %w", err)
	}
	return nil
}

// check compares what the talkers were told with what the server has recorded:
// every record is what its revision says as a whole, every answer is that of
// its record, and no talker's revisions ever go back, its acks included.
func (l *swapLoad) check(records []*decisionlog.Record, revisions map[string]int64) {
	l.t.Helper()
	byID, byMessage, sends := map[string]int64{}, map[chat.MessageID]int64{}, 0
	for _, r := range records {
		n, known := revisions[r.Revision]
		if !known {
			l.t.Errorf("decision %s is by %s, which was never to decide", r.ID, r.Revision)
			continue
		}
		if r.Input.Action.Name != gate.MessageSend {
			if !r.Allow || r.Failed {
				l.t.Errorf("%s by revision %d: got %+v, want it allowed", r.Input.Action.Name, n, r.Decision())
			}
			continue
		}
		if !whole(r, n) {
			l.t.Errorf("mixed: revision %d decided about %s: %+v", n, r.Input.Resource.ID, r.Decision())
		}
		byID[r.ID], byMessage[r.Message] = n, n
		sends++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if sends != len(l.answers) {
		l.t.Errorf("%d messages were answered, decisions about %d are on record", len(l.answers), sends)
	}
	var last [swapTalkers]int64
	for _, a := range l.answers {
		n, recorded := a.named, true
		switch {
		case a.message != "":
			if n, recorded = byMessage[a.message]; n < a.floor || a.room != swapRooms[n%2] {
				l.t.Errorf("message %s was let into %s by revision %d, after %d was seen", a.message, a.room, n, a.floor)
			}
		case a.decision != "":
			n, recorded = byID[a.decision]
		}
		switch {
		case !recorded:
			l.t.Errorf("there is no record of the decision behind %+v", a)
		case a.named != 0 && n != a.named:
			l.t.Errorf("mixed: revision %d decided, and the answer names %d: %+v", n, a.named, a)
		case n < last[a.talker]:
			l.t.Errorf("talker %d was answered by revision %d after %d", a.talker, n, last[a.talker])
		}
		last[a.talker] = n
	}
}

// whole reports whether every part of a decision about a message is what
// revision n says.
func whole(r *decisionlog.Record, n int64) bool {
	open := r.Input.Resource.ID == string(swapRooms[n%2])
	switch o := r.Obligations; {
	case r.Failed || r.Allow != open:
		return false
	case open:
		return o != nil && o.TextBytes != nil && int64(*o.TextBytes) == leastBytes+n && len(r.Reasons) == 0
	}
	return r.Obligations == nil && len(r.Reasons) == 1 &&
		r.Reasons[0].Code == fmt.Sprint("revision_", n) && r.Reasons[0].Text == fmt.Sprintf("Revision %d refuses.", n)
}
