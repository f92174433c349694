package load

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency is a distribution of times, 1 µs to 2 minutes with three digits.
// It is owned by one goroutine.
type Latency struct{ h *hdrhistogram.Histogram }

const longest = 2 * time.Minute

// NewLatency returns an empty one.
func NewLatency() Latency {
	return Latency{hdrhistogram.New(1, longest.Microseconds(), 3)}
}

// Record takes one time in nanoseconds.
func (l Latency) Record(ns int64) {
	_ = l.h.RecordValue(min(max(ns/1000, 0), longest.Microseconds())) // never out of range
}

// Merge adds what o holds.
func (l Latency) Merge(o Latency) {
	if o.h != nil {
		l.h.Merge(o.h)
	}
}

// Count is how many times were recorded.
func (l Latency) Count() int64 { return l.h.TotalCount() }

// At returns the time that q percent of the records do not exceed.
func (l Latency) At(q float64) time.Duration {
	return time.Duration(l.h.ValueAtQuantile(q)) * time.Microsecond
}

// Max is the longest time.
func (l Latency) Max() time.Duration { return time.Duration(l.h.Max()) * time.Microsecond }

// MarshalJSON writes the HdrHistogram V2 form.
func (l Latency) MarshalJSON() ([]byte, error) {
	if l.h == nil {
		return []byte("null"), nil
	}
	b, err := l.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(b))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (l *Latency) UnmarshalJSON(b []byte) error {
	var text *string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	*l = NewLatency()
	if text == nil {
		return nil
	}
	h, err := hdrhistogram.Decode([]byte(*text))
	if err != nil {
		return fmt.Errorf("read histogram: %w", err)
	}
	l.h.Merge(h)
	return nil
}

// Second is one second of a run, counted from the beginning of the traffic.
type Second struct {
	Delivered uint64  `json:"delivered"`
	P99ms     float64 `json:"p99_ms"`
	MaxMS     float64 `json:"max_ms"`
}

// Stats is what one process, or all together, saw. Delivered, Sent and the
// latencies are of the measured time alone; everything else is of the whole
// run.
type Stats struct {
	Open      int               `json:"open"`
	Refused   map[string]uint64 `json:"refused,omitempty"` // connections that did not come to be, by reason
	Returned  uint64            `json:"returned"`          // refusals with a time to come back, which was kept
	Closed    map[string]uint64 `json:"closed,omitempty"`  // connections the server ended, by close code or error
	Errors    map[string]uint64 `json:"errors,omitempty"`  // commands refused, by error code
	Faults    Faults            `json:"faults"`
	Delivered uint64            `json:"delivered"` // messages received by members
	Sent      uint64            `json:"sent"`      // messages sent, measured time alone
	Answered  uint64            `json:"answered"`  // acks, whole run
	Pending   uint64            `json:"pending"`   // messages never answered
	Redacted  uint64            `json:"redacted"`  // acks that say a plugin masked something
	Bytes     uint64            `json:"bytes"`     // read from the sockets, whole run
	Reads     uint64            `json:"reads"`     // read(2) calls that brought something, whole run
	Pings     uint64            `json:"pings"`     // heartbeats answered
	CPU       time.Duration     `json:"cpu"`       // this process's own, measured time

	Delivery Latency  `json:"delivery"` // from the publisher's send to the member's read
	Ack      Latency  `json:"ack"`      // from send to ack
	Connect  Latency  `json:"connect"`  // from connect(2) to joined
	Behind   Latency  `json:"behind"`   // publishers: how late this client itself was
	Seconds  []Second `json:"seconds,omitempty"`
}

// NewStats returns empty ones.
func NewStats() *Stats {
	return &Stats{
		Refused: map[string]uint64{}, Closed: map[string]uint64{}, Errors: map[string]uint64{},
		Delivery: NewLatency(), Ack: NewLatency(), Connect: NewLatency(), Behind: NewLatency(),
	}
}

// Merge adds another process's.
func (s *Stats) Merge(o *Stats) {
	s.Open += o.Open
	s.Returned += o.Returned
	for _, m := range []struct{ to, from map[string]uint64 }{{s.Refused, o.Refused}, {s.Closed, o.Closed}, {s.Errors, o.Errors}} {
		for k, n := range maps.All(m.from) {
			m.to[k] += n
		}
	}
	s.Faults.add(o.Faults)
	s.Delivered += o.Delivered
	s.Sent += o.Sent
	s.Answered += o.Answered
	s.Pending += o.Pending
	s.Redacted += o.Redacted
	s.Bytes += o.Bytes
	s.Reads += o.Reads
	s.Pings += o.Pings
	s.CPU = max(s.CPU, o.CPU) // the busiest process is the one that may be in the way
	s.Delivery.Merge(o.Delivery)
	s.Ack.Merge(o.Ack)
	s.Connect.Merge(o.Connect)
	s.Behind.Merge(o.Behind)
	for i, sec := range o.Seconds {
		if i == len(s.Seconds) {
			s.Seconds = append(s.Seconds, Second{})
		}
		s.Seconds[i].Delivered += sec.Delivered
		s.Seconds[i].P99ms = max(s.Seconds[i].P99ms, sec.P99ms)
		s.Seconds[i].MaxMS = max(s.Seconds[i].MaxMS, sec.MaxMS)
	}
}

// seconds gathers a run's Seconds as it goes.
type seconds struct {
	done    []Second
	current Latency
	n       uint64
}

// maxSeconds bounds a run's seconds.
const maxSeconds = 4 * 3600

// record takes a delivery in the given second of the run.
func (s *seconds) record(second int64, ns int64) {
	if second < 0 || second >= maxSeconds {
		return
	}
	for int64(len(s.done)) < second {
		s.turn()
	}
	s.n++
	s.current.Record(ns)
}

func (s *seconds) turn() {
	s.done = append(s.done, Second{
		Delivered: s.n, P99ms: float64(s.current.At(99)) / 1e6, MaxMS: float64(s.current.Max()) / 1e6,
	})
	s.current.h.Reset()
	s.n = 0
}
