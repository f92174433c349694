// Package backtest has two versions of a plugin judge the same recorded
// messages and reports what would change.
//
// What is replayed are the bytes the plugins saw when the message was written
// (abi.AppendInput), so a version that judged then judges the same now. Run
// knows nothing of where records come from or how a report is shown. It is
// called on one goroutine, uses as many as Config.Workers, and has none left
// when it returns.
package backtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// Record is one recorded message: what the admin API's list of evidence and
// its lines in a file hold, as far as it is needed.
type Record struct {
	ID    string `json:"id"`
	Room  string `json:"room"`
	User  string `json:"user"`
	Time  int64  `json:"ts"`    // Unix ms
	Input []byte `json:"input"` // as the plugins saw it; base64 in JSON
}

// Source gives records page by page.
type Source interface {
	// Next returns the next page, which may be empty, and io.EOF after the
	// last. It is called by one goroutine.
	Next(ctx context.Context) ([]Record, error)
}

// Judge is one version of a plugin. moderation.Judge has these methods, and a
// loaded plugin is one. Several goroutines call them.
type Judge interface {
	Wants(room chat.RoomID, kind string) bool
	Decide(input, text, normalized []byte) (v abi.Verdict, r abi.Result, fuel uint64, err error)
}

// Config bounds a run.
type Config struct {
	Limit   int // of changes kept with their texts; the others are counted
	Workers int // decisions at a time
}

// Defaults returns the configuration of `platform plugin backtest`.
func Defaults() Config { return Config{Limit: 50, Workers: runtime.GOMAXPROCS(0)} }

// NotAsked is the verdict of a version whose manifest leaves the room or kind
// of a message out.
const NotAsked = "not asked"

// Outcome is what one version made of one message.
type Outcome struct {
	Verdict string `json:"verdict"` // "error" where it failed, NotAsked
	Code    uint16 `json:"code,omitempty"`
	Score   uint16 `json:"score,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Masked  string `json:"masked,omitempty"` // with redact: what people would see
	Fuel    uint64 `json:"fuel"`
	Error   string `json:"error,omitempty"`

	spans []abi.Span
	took  time.Duration
}

// Change is one message on which the versions differ.
type Change struct {
	ID   string  `json:"id"`
	Room string  `json:"room"`
	User string  `json:"user"`
	Time int64   `json:"ts"` // Unix ms
	Text string  `json:"text"`
	Old  Outcome `json:"old"`
	New  Outcome `json:"new"`
}

// Pair is a verdict of the old version and one of the new.
type Pair struct{ Old, New string }

// Side sums up one version.
type Side struct {
	Decisions uint64
	Failed    uint64
	Busy      time.Duration // in decisions, all workers together
	Fuel      Histogram
}

// PerSecond returns the decisions a second of one worker, 0 for none.
func (s Side) PerSecond() float64 {
	if s.Busy <= 0 {
		return 0
	}
	return float64(s.Decisions) / s.Busy.Seconds()
}

// Report is what a run found.
type Report struct {
	Records   uint64 // judged
	Malformed uint64 // records that hold no input of this ABI
	Changed   uint64 // verdict, or what is masked
	Reworded  uint64 // the same verdict for another rule or reason
	Pairs     map[Pair]uint64
	Changes   []Change // the first Config.Limit, in order of the records
	Old, New  Side
	Took      time.Duration
}

// Progress is how far a run is.
type Progress struct {
	Records, Changed uint64
	Time             int64 // of the newest record judged, Unix ms
}

// Run replays every record of source. On an error the report is of what was
// judged until then. progress is called after each page.
func Run(ctx context.Context, cfg Config, before, after Judge, source Source, progress func(Progress)) (Report, error) {
	if cfg.Workers < 1 || cfg.Limit < 0 {
		return Report{}, fmt.Errorf("backtest: %d workers and a limit of %d: want 1 and 0 at least", cfg.Workers, cfg.Limit)
	}
	began := time.Now()
	r := Report{Pairs: make(map[Pair]uint64)}
	for {
		page, err := source.Next(ctx)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			r.Took = time.Since(began)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return r, err
		}
		for _, j := range judgePage(cfg.Workers, before, after, page) {
			r.add(cfg, &j)
		}
		if len(page) > 0 && progress != nil {
			progress(Progress{r.Records, r.Changed, page[len(page)-1].Time})
		}
	}
}

// judgement is what both versions made of one record.
type judgement struct {
	record           *Record
	text, normalized []byte
	malformed        bool
	old, new         Outcome
}

// judgePage has the workers judge a page, each a part of it.
func judgePage(workers int, before, after Judge, page []Record) []judgement {
	out := make([]judgement, len(page))
	part := max(1, (len(page)+workers-1)/workers)
	var wg sync.WaitGroup
	for from := 0; from < len(page); from += part {
		to := min(from+part, len(page))
		wg.Go(func() {
			for i := from; i < to; i++ {
				out[i] = judge(before, after, &page[i])
			}
		})
	}
	wg.Wait()
	return out
}

func judge(before, after Judge, rec *Record) judgement {
	j := judgement{record: rec}
	var field [abi.NumFields][]byte
	for f := range field {
		b, err := abi.FieldBytes(rec.Input, abi.Field(f))
		if err != nil {
			j.malformed = true
			return j
		}
		field[f] = b
	}
	j.text, j.normalized = field[abi.FieldText], field[abi.FieldNormalized]
	room, kind := chat.RoomID(field[abi.FieldRoom]), string(field[abi.FieldKind])
	j.old = decide(before, room, kind, rec.Input, j.text, j.normalized)
	j.new = decide(after, room, kind, rec.Input, j.text, j.normalized)
	return j
}

func decide(d Judge, room chat.RoomID, kind string, input, text, normalized []byte) Outcome {
	if !d.Wants(room, kind) {
		return Outcome{Verdict: NotAsked}
	}
	began := time.Now()
	v, res, fuel, err := d.Decide(input, text, normalized)
	o := Outcome{Verdict: v.String(), Code: res.Code, Score: res.Score, Reason: res.Reason, Fuel: fuel, spans: res.Spans, took: time.Since(began)}
	if err != nil {
		o.Verdict, o.Error = abi.Error.String(), err.Error()
	}
	return o
}

func (r *Report) add(cfg Config, j *judgement) {
	if j.malformed {
		r.Malformed++
		return
	}
	r.Records++
	r.Old.add(&j.old)
	r.New.add(&j.new)
	r.Pairs[Pair{j.old.Verdict, j.new.Verdict}]++
	same := j.old.Verdict == j.new.Verdict
	if same && slices.Equal(j.old.spans, j.new.spans) {
		r.reworded(j)
		return
	}
	old, now := masked(j, &j.old), masked(j, &j.new)
	if same && old == now { // other spans over the same characters
		r.reworded(j)
		return
	}
	r.Changed++
	if len(r.Changes) < cfg.Limit {
		j.old.Masked, j.new.Masked = old, now
		r.Changes = append(r.Changes, Change{ID: j.record.ID, Room: j.record.Room, User: j.record.User, Time: j.record.Time,
			Text: string(j.text), Old: j.old, New: j.new})
	}
}

func (r *Report) reworded(j *judgement) {
	if j.old.Code != j.new.Code || j.old.Reason != j.new.Reason {
		r.Reworded++
	}
}

func (s *Side) add(o *Outcome) {
	if o.Verdict == NotAsked {
		return
	}
	s.Decisions++
	s.Busy += o.took
	s.Fuel.add(o.Fuel)
	if o.Error != "" {
		s.Failed++
	}
}

// masked is the text as people would see it, "" for other verdicts than
// redact.
func masked(j *judgement, o *Outcome) string {
	if o.Verdict != abi.Redact.String() {
		return ""
	}
	return moderation.MaskSpans(string(j.text), o.spans)
}
