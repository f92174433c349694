package liveness

import (
	"log/slog"
	"time"
)

// Evidence is what the kernel knows of one TCP connection at one moment
// (tcp(7), struct tcp_info in linux/tcp.h). The zero Evidence is that of a
// system or a connection that has none: Known is false and nothing follows
// from the rest.
type Evidence struct {
	Known bool

	Unread  int    // bytes received that no read has taken (SIOCINQ)
	Queued  int    // bytes written that the other end has not acknowledged (SIOCOUTQ), and what its user has to write still
	NotSent int    // of them, bytes that were never sent: the window or the path is full
	Acked   uint64 // bytes the other end has ever acknowledged

	Unacked     int    // segments in flight
	Timeouts    int    // retransmission time-outs in a row without progress
	Backoff     int    // doublings of the retransmission timer, or of the window probe's
	Probes      int    // unanswered window or KeepAlive probes in a row
	Retransmits uint32 // segments ever sent again
	SegmentsOut uint32 // segments ever sent
	DataIn      uint32 // segments with data that ever arrived, also those behind a hole

	RTT     time.Duration // smoothed round trip
	RTTVar  time.Duration // its mean deviation
	RTO     time.Duration // the retransmission timer as it stands
	LastAck time.Duration // since the last segment with an ACK came
}

// blocked reports a closed window: data waits and nothing is in flight.
func (e *Evidence) blocked() bool { return e.NotSent > 0 && e.Unacked == 0 }

// LossShare is the share of segments that had to be sent again, 0 to 1.
func (e *Evidence) LossShare() float64 {
	if e.SegmentsOut == 0 {
		return 0
	}
	return float64(e.Retransmits) / float64(e.SegmentsOut)
}

// What makes a connection a poor one, for the sweep's log and ranking: more
// than a visible loss, a round trip that people notice, or data that has to be
// sent again right now.
const (
	poorLoss    = 0.02
	poorResends = 5 // below, a share says nothing
	poorRTT     = 500 * time.Millisecond
)

// Poor reports a connection whose path an operator may want to know of.
func (e *Evidence) Poor() bool {
	return e.Retransmits >= poorResends && e.LossShare() > poorLoss ||
		e.RTT > poorRTT || e.Timeouts > 0
}

// Badness ranks connections, the worse the higher: each percent of loss, each
// 50 ms of round trip and each time-out in a row counts one.
func (e *Evidence) Badness() float64 {
	b := e.RTT.Seconds()*20 + float64(e.Timeouts)
	if e.Retransmits >= poorResends {
		b += e.LossShare() * 100
	}
	return b
}

// LogValue implements slog.LogValuer: the numbers a verdict rests on.
func (e Evidence) LogValue() slog.Value {
	if !e.Known {
		return slog.StringValue("none")
	}
	return slog.GroupValue(
		slog.Int("unread", e.Unread), slog.Int("queued", e.Queued), slog.Int("not_sent", e.NotSent),
		slog.Int("unacked", e.Unacked), slog.Int("timeouts", e.Timeouts), slog.Int("backoff", e.Backoff), slog.Int("probes", e.Probes),
		slog.Uint64("retransmits", uint64(e.Retransmits)), slog.Uint64("segments_out", uint64(e.SegmentsOut)),
		slog.Int64("rtt_us", e.RTT.Microseconds()), slog.Int64("rto_ms", e.RTO.Milliseconds()), slog.Int64("last_ack_ms", e.LastAck.Milliseconds()),
	)
}
