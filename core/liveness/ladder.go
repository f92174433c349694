package liveness

import (
	"fmt"
	"time"
)

// Mode says what ends a connection whose client does not answer.
type Mode string

// The modes. In each the kernel's own timers (KeepAlive, TCP_USER_TIMEOUT)
// may end a connection too.
const (
	// ModeLadder weighs an overdue pong against what the kernel knows.
	ModeLadder Mode = "ladder"
	// ModePing closes as soon as a pong is overdue, whoever is to blame.
	ModePing Mode = "ping"
	// ModeKeepAlive leaves it to the kernel; pings are sent and not judged.
	ModeKeepAlive Mode = "keepalive"
	// ModeBoth wants an overdue pong and KeepAlive's unanswered probes. The
	// unacknowledged ping keeps KeepAlive from probing, and the kernel of a
	// frozen process goes on answering, so this closes nobody: it is here to be
	// measured.
	ModeBoth Mode = "both"
)

// Cause names the evidence that a connection was closed on.
type Cause string

// The causes. Causes lists them.
const (
	// CausePathDead: what we sent was sent again maxTimeouts times, and
	// nothing of it was acknowledged.
	CausePathDead Cause = "path_dead"
	// CausePathStalled: nothing was acknowledged for as long as is allowed,
	// though the retransmission timer is too slow for CausePathDead.
	CausePathStalled Cause = "path_stalled"
	// CauseFrozen: the other end's kernel acknowledges, its program does not
	// answer, not even a second ping.
	CauseFrozen Cause = "frozen"
	// CauseNoPong: no answer, and no evidence is there or asked for.
	CauseNoPong Cause = "no_pong"
	// CauseKeepAlive: ModeBoth's two witnesses agree.
	CauseKeepAlive Cause = "keepalive"
	// CauseKernel: the kernel gave the connection up by itself (ETIMEDOUT),
	// by TCP_USER_TIMEOUT or KeepAlive. The wheel never says this; who reads
	// the socket does.
	CauseKernel Cause = "kernel_timeout"
)

// Causes returns every Cause.
func Causes() []Cause {
	return []Cause{CausePathDead, CausePathStalled, CauseFrozen, CauseNoPong, CauseKeepAlive, CauseKernel}
}

// Excuse names why a suspect was given more time.
type Excuse string

// The excuses. Excuses lists them.
const (
	ExcuseLate     Excuse = "late"     // this server ran late itself
	ExcuseUnread   Excuse = "unread"   // bytes of the peer wait to be read by us
	ExcuseWindow   Excuse = "window"   // the peer's window is closed: a slow consumer, with limits of its own
	ExcuseProgress Excuse = "progress" // the peer acknowledges, the ping waits behind other data
	ExcuseArriving Excuse = "arriving" // its data arrives, behind a segment that was lost
)

// Excuses returns every Excuse.
func Excuses() []Excuse {
	return []Excuse{ExcuseLate, ExcuseUnread, ExcuseWindow, ExcuseProgress, ExcuseArriving}
}

// Verdict says that a peer is taken for dead, and on what evidence.
type Verdict struct {
	Cause    Cause
	Age      time.Duration // since the ping that went unanswered first
	Ping     uint32        // its number
	Pings    int           // pings that went unanswered: 1 or 2
	Evidence Evidence      // as it was last
}

// String says it for people.
func (v Verdict) String() string {
	return fmt.Sprintf("%s: no pong %v after ping %d", v.Cause, v.Age.Round(time.Millisecond), v.Ping)
}

// maxTimeouts is how many retransmission time-outs in a row make a dead path.
// With the first sending and the tail loss probe (RFC 8985 section 7) five
// segments went unanswered by then: at 5 % loss each way that is one ping in
// some hundred thousand, and a timer that has grown by spikes of delay needs
// longer for it by itself. On a link of 200 ms or less a cut reaches it within
// 3.2 s.
const maxTimeouts = 3

// stallPongs is the hard cap on a path without any progress, in tenths of
// Config.Pong: 10 s by default. TCP_USER_TIMEOUT comes after it.
const stallPongs = 33

// pongTries is how many of our own retransmission time-outs a pong is given
// after its ping was acknowledged: the other end's timer is about as slow as
// ours, and doubles. On a path without spikes of delay the time is over long
// before the peer's.
const pongTries = 4

// trial is one suspect before the ladder. Times are those of the wheel's
// clock, in ns.
type trial struct {
	asked int64 // the first ping
	again int64 // the second, of which there is one; 0 = not yet
	since int64 // its time to answer counts from here
	moved int64 // when it last acknowledged something, as far as is known
	calm  int64 // when all that was sent before the first look was acknowledged; 0 = not yet

	looked bool
	goal   uint64 // Acked when all that was sent before the first look is
	acked  uint64 // at the last look
	dataIn uint32
}

// step is what to do about a suspect now.
type step struct {
	cause  Cause  // close it
	excuse Excuse // it was given more time
	ask    bool   // send it a second ping
}

// ladder weighs evidence. It is a pure function of its arguments.
type ladder struct {
	mode      Mode
	pong      int64 // ns
	tick      int64 // ns
	keepCount int   // Config.KeepAliveCount
}

// stall is the cap on a path without progress, in ns.
func (l *ladder) stall() int64 { return l.pong * stallPongs / 10 }

// over reports whether d has passed but for half a step of the wheel, so that
// a tick that fires a little early does not cost a whole one.
func (l *ladder) over(passed, d int64) bool { return passed >= d-l.tick/2 }

// frozenAfter is the silence after the first ping that makes a frozen peer:
// two pongs' time, less what makes the verdict fall within it.
func (l *ladder) frozenAfter() int64 { return 2*l.pong - l.tick }

// judge decides about a suspect. heard is when bytes of any kind last came
// from it.
func (l *ladder) judge(t *trial, now, heard int64, e *Evidence) step {
	t.since = max(t.since, heard)
	switch {
	case !l.over(now-t.asked, l.pong):
		return step{}
	case l.mode == ModePing:
		return step{cause: CauseNoPong}
	case l.mode == ModeBoth:
		if e.Known && e.Unacked == 0 && e.Probes > 0 && e.Probes >= l.keepCount {
			return step{cause: CauseKeepAlive}
		}
		return step{}
	case !e.Known:
		return l.blind(t, now)
	}
	return l.weigh(t, now, e)
}

// blind is the ladder without evidence: a second ping, and then silence.
func (l *ladder) blind(t *trial, now int64) step {
	switch {
	case !l.over(now-t.since, l.pong):
		return step{}
	case t.again == 0:
		return t.second(now)
	case l.over(now-t.again, l.pong-l.tick) && l.over(now-t.asked, l.frozenAfter()):
		return step{cause: CauseNoPong}
	}
	return step{}
}

// weigh is the ladder proper.
func (l *ladder) weigh(t *trial, now int64, e *Evidence) step {
	progress, arrived := t.note(now, e)
	switch {
	case e.Unread > 0:
		return t.keep(now, ExcuseUnread)
	case e.Unacked > 0 && e.Timeouts >= maxTimeouts:
		return step{cause: CausePathDead}
	case e.Unacked > 0 && l.over(now-t.moved, l.stall()):
		return step{cause: CausePathStalled}
	case e.blocked():
		return t.keep(now, ExcuseWindow)
	case t.calm == 0 && progress:
		return t.keep(now, ExcuseProgress)
	case t.calm == 0:
		return step{} // the ping may be lost; its retransmission decides
	case arrived:
		return t.keep(now, ExcuseArriving)
	case !l.over(now-t.since, l.pong):
		return step{}
	case t.again == 0:
		return t.second(now)
	case e.Unacked > 0 && e.Timeouts > 0:
		return step{} // the second ping is in trouble, so a pong may be
	case now-t.calm < pongTries*int64(e.RTO):
		return step{} // a lost pong may still be sent again
	case l.over(now-t.again, l.pong-l.tick) && l.over(now-t.asked, l.frozenAfter()):
		return step{cause: CauseFrozen}
	}
	return step{}
}

// note compares the evidence with the last look's.
func (t *trial) note(now int64, e *Evidence) (progress, arrived bool) {
	if !t.looked {
		t.looked = true
		t.goal = e.Acked + uint64(e.Queued)
		t.moved = t.asked
	} else {
		progress, arrived = e.Acked > t.acked, e.DataIn != t.dataIn
	}
	if progress {
		t.moved = now
	}
	if t.calm == 0 && e.Acked >= t.goal {
		t.calm = now
		if progress { // the ping was lost on its way: the answer's time begins now
			t.since = max(t.since, now)
		}
	}
	t.acked, t.dataIn = e.Acked, e.DataIn
	return progress, arrived
}

// keep gives the peer its time again.
func (t *trial) keep(now int64, why Excuse) step {
	t.since = now
	return step{excuse: why}
}

// second asks once more.
func (t *trial) second(now int64) step {
	t.again = now
	return step{ask: true}
}
