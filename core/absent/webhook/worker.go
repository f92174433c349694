package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/absent"
	queue "parley/core/absent/redis"
)

// Queue is where items come from (package absent/redis).
type Queue interface {
	Read(ctx context.Context, n int, claim bool, idle time.Duration) ([]queue.Item, error)
	Keep(ctx context.Context, ids []string) (mine []string, err error)
	Text(ctx context.Context, e *absent.Entry) (string, error)
	Done(ctx context.Context, id string) error
	Failed(ctx context.Context, id string, tries int) error
	Bury(ctx context.Context, id, reason string, tries int) error
}

// Config says where and how to deliver. Decode it over Defaults.
type Config struct {
	URL         string
	Secrets     []Secret
	CAFile      string        // CAs to trust instead of the system's
	Concurrency int           // deliveries under way at once
	Tries       int           // attempts before an item is a dead letter
	FirstWait   time.Duration // after the first failure; it doubles with each
	MostWait    time.Duration // the longest of these waits
	Timeout     time.Duration // of one attempt
	Poll        time.Duration // between two looks at an empty stream
	ClaimAfter  time.Duration // without a sign of life, after which a worker's items go to others
	Grace       time.Duration // for what is under way when the worker is to end
}

// Defaults returns the configuration for ordinary use, without an endpoint. An
// item is given up after about four hours.
func Defaults() Config {
	return Config{Concurrency: 16, Tries: 15, FirstWait: time.Second, MostWait: time.Hour, Timeout: 10 * time.Second,
		Poll: 200 * time.Millisecond, ClaimAfter: time.Minute, Grace: 5 * time.Second}
}

func (c Config) check() error {
	if err := CheckURL(c.URL); err != nil {
		return err
	}
	switch {
	case len(c.Secrets) == 0:
		return errors.New("the webhook has no secret to sign with")
	case c.Concurrency < 1 || c.Concurrency > maxHeld:
		return fmt.Errorf("concurrency %d is not within 1 and %d", c.Concurrency, maxHeld)
	case c.Tries < 1 || c.Tries > 100:
		return fmt.Errorf("tries %d is not within 1 and 100", c.Tries)
	case c.FirstWait <= 0 || c.MostWait < c.FirstWait:
		return fmt.Errorf("the waits %s and %s must be above 0, the second the longer", c.FirstWait, c.MostWait)
	case c.Timeout <= 0 || c.Poll <= 0 || c.Grace < 0:
		return errors.New("the timeout and the time between two looks must be above 0")
	case c.ClaimAfter < 10*time.Millisecond:
		return fmt.Errorf("claim after %s: want at least 10ms", c.ClaimAfter)
	}
	return nil
}

const (
	maxHeld   = 1024 // items in the hands of one worker, those that wait to be tried again included
	readMost  = 64   // items read at a time
	keepShare = 4    // a worker gives so many signs of life before its items are taken
	endTries  = 5    // times that ending an item is tried, before it is left to be delivered again
	endPause  = 200 * time.Millisecond
)

// Stats count what a Worker did.
type Stats struct {
	Delivered uint64
	Retried   uint64 // attempts in vain that are followed by another
	Dead      uint64 // items that became dead letters
	Lost      uint64 // items that another worker has taken over meanwhile
	Unended   uint64 // items that Redis could not be told the end of: delivered again later
	Errors    uint64 // calls to Redis that failed
	Held      int64  // items in hand
	Open      bool   // the endpoint is left alone at the moment
}

// Worker delivers. It works while Run runs.
type Worker struct {
	// Set at construction.
	cfg  Config
	q    Queue
	http *http.Client
	log  *slog.Logger

	delivered, retried, dead, lost, unended, failed atomic.Uint64
	inHand                                          atomic.Int64
	isOpen                                          atomic.Bool

	// Owned by Run.
	held    map[string]*task
	flying  int
	circuit circuit
	results chan result
	own     sync.WaitGroup
}

// task is an item in hand.
type task struct {
	item   queue.Item
	due    time.Time
	flying bool
	probe  bool
}

// result is how an attempt ended.
type result struct {
	t    *task
	v    verdict
	dead bool
	not  bool // it was not tried: Redis did not say what is to be delivered
}

// New returns a worker. It starts nothing.
func New(cfg Config, q Queue, log *slog.Logger) (*Worker, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Worker{cfg: cfg, q: q, http: client, log: log, held: make(map[string]*task), results: make(chan result, cfg.Concurrency)}, nil
}

// Stats returns the counts so far.
func (w *Worker) Stats() Stats {
	return Stats{Delivered: w.delivered.Load(), Retried: w.retried.Load(), Dead: w.dead.Load(), Lost: w.lost.Load(), Unended: w.unended.Load(),
		Errors: w.failed.Load(), Held: w.inHand.Load(), Open: w.isOpen.Load()}
}

// Run delivers until ctx ends, then gives what is under way Grace to end, and
// returns nil. What it has in hand then is delivered by others, or by the next
// run, after ClaimAfter. Call it once.
func (w *Worker) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer w.http.CloseIdleConnections()
	keepEvery := w.cfg.ClaimAfter / keepShare
	nextRead, nextKeep, nextClaim := time.Now(), time.Now().Add(keepEvery), time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(nextKeep) {
			w.keep(ctx)
			nextKeep = time.Now().Add(keepEvery)
		}
		if room := maxHeld - len(w.held); !now.Before(nextRead) && room > 0 && (!w.circuit.open() || w.circuit.may(now) && len(w.held) == 0) {
			n, claim := min(room, readMost), !now.Before(nextClaim)
			got, full := w.read(ctx, n, claim)
			nextRead = time.Now()
			if !full {
				nextRead = nextRead.Add(w.cfg.Poll)
			}
			if claim && got == 0 {
				nextClaim = time.Now().Add(keepEvery)
			}
		}
		w.launch(work, time.Now())
		w.inHand.Store(int64(len(w.held)))
		w.isOpen.Store(w.circuit.open())
		timer.Reset(max(0, time.Until(w.wakeAt(nextRead, nextKeep))))
		select {
		case <-ctx.Done():
		case r := <-w.results:
			w.settle(r, time.Now())
		case <-timer.C:
		}
	}
	grace := time.AfterFunc(w.cfg.Grace, stop)
	defer grace.Stop()
	for w.flying > 0 {
		w.settle(<-w.results, time.Now())
	}
	w.own.Wait()
	return nil
}

// wakeAt is when there is something to do next, if nothing happens before.
func (w *Worker) wakeAt(nextRead, nextKeep time.Time) time.Time {
	at := nextKeep
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if len(w.held) < maxHeld && !w.circuit.open() {
		earlier(nextRead)
	}
	if w.circuit.open() {
		if !w.circuit.probing {
			earlier(w.circuit.until)
			if at.Before(time.Now().Add(w.cfg.Poll)) { // due, and perhaps nothing to try it with
				at = time.Now().Add(w.cfg.Poll)
			}
		}
		return at
	}
	if w.flying < w.cfg.Concurrency {
		for _, t := range w.held {
			if !t.flying {
				earlier(t.due)
			}
		}
	}
	return at
}

// read takes items in hand.
func (w *Worker) read(ctx context.Context, n int, claim bool) (got int, full bool) {
	items, err := w.q.Read(ctx, n, claim, w.cfg.ClaimAfter)
	if err != nil && ctx.Err() == nil {
		w.failed.Add(1)
		w.log.Warn("messages for absent people cannot be read at present", slog.Any("error", err))
	}
	for _, it := range items {
		if w.held[it.ID] == nil {
			w.held[it.ID] = &task{item: it}
		}
	}
	return len(items), len(items) == n
}

// keep gives a sign of life for what is in hand, and lets go of what is not this
// worker's any more.
func (w *Worker) keep(ctx context.Context) {
	ids := make([]string, 0, len(w.held))
	for id := range w.held {
		ids = append(ids, id)
	}
	mine, err := w.q.Keep(ctx, ids)
	if err != nil {
		if ctx.Err() == nil {
			w.failed.Add(1)
			w.log.Warn("messages for absent people cannot be kept at present", slog.Any("error", err))
		}
		return
	}
	still := make(map[string]struct{}, len(mine))
	for _, id := range mine {
		still[id] = struct{}{}
	}
	for _, id := range ids {
		if _, ok := still[id]; !ok && !w.held[id].flying {
			delete(w.held, id)
			w.lost.Add(1)
		}
	}
}

// launch tries what is due, as far as the circuit and Concurrency allow, what
// was tried least first.
func (w *Worker) launch(ctx context.Context, now time.Time) {
	for w.flying < w.cfg.Concurrency && w.circuit.may(now) {
		var next *task
		for _, t := range w.held {
			if !t.flying && !now.Before(t.due) && (next == nil || t.item.Tries < next.item.Tries || t.item.Tries == next.item.Tries && t.item.ID < next.item.ID) {
				next = t
			}
		}
		if next == nil {
			return
		}
		next.flying, next.probe = true, w.circuit.open()
		w.circuit.try()
		w.flying++
		w.own.Go(func() { w.results <- w.attempt(ctx, next) })
	}
}

// attempt delivers an item, and tells the queue how it ended.
func (w *Worker) attempt(ctx context.Context, t *task) result {
	r := result{t: t}
	if t.item.Bad != nil {
		r.v = verdict{final: true, reason: cut("it cannot be read: " + t.item.Bad.Error())}
	} else {
		// Each time: it may have been erased since the last one.
		e := t.item.Entry
		var err error
		if e.Text, err = w.q.Text(ctx, &e); err != nil {
			if ctx.Err() == nil {
				w.failed.Add(1)
				w.log.Warn("a message for somebody absent cannot be delivered at present", slog.Any("error", err))
			}
			r.not = true
			return r
		}
		r.v = w.post(ctx, &e)
	}
	tries := t.item.Tries + 1
	switch {
	case r.v.ok:
		w.end(ctx, func() error { return w.q.Done(ctx, t.item.ID) })
		w.delivered.Add(1)
	case r.v.final || tries >= w.cfg.Tries:
		r.dead = true
		w.end(ctx, func() error { return w.q.Bury(ctx, t.item.ID, r.v.reason, tries) })
		w.dead.Add(1)
		w.log.Warn("a message for somebody absent is a dead letter", slog.String("room", string(t.item.Entry.Room)), slog.String("id", string(t.item.Entry.ID)),
			slog.String("reason", r.v.reason), slog.Int("tries", tries))
	case ctx.Err() == nil: // an attempt that was cut short does not count
		if err := w.q.Failed(ctx, t.item.ID, tries); err != nil {
			w.failed.Add(1) // another worker would try it once more
		}
		w.retried.Add(1)
	}
	return r
}

// end tells the queue the end of an item. Where that does not succeed the item
// comes back to somebody after ClaimAfter.
func (w *Worker) end(ctx context.Context, tell func() error) {
	for n := range endTries {
		if n > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(endPause << n):
			}
		}
		err := tell()
		if err == nil {
			return
		}
		w.failed.Add(1)
		if n == endTries-1 || ctx.Err() != nil {
			w.unended.Add(1)
			w.log.Warn("the end of a message for somebody absent cannot be stored: it will be delivered again", slog.Any("error", err))
			return
		}
	}
}

// settle takes the result of an attempt.
func (w *Worker) settle(r result, now time.Time) {
	w.flying--
	t := r.t
	t.flying = false
	was := w.circuit.open()
	switch {
	case r.not:
		t.due = now.Add(w.cfg.FirstWait)
		if t.probe {
			w.circuit.probing = false
		}
		return
	case r.v.sick:
		w.circuit.bad(t.item.ID, r.v.after, t.probe, now)
	case t.item.Bad == nil:
		w.circuit.good()
	case t.probe:
		w.circuit.probing = false
	}
	if is := w.circuit.open(); is && !was {
		w.log.Warn("the webhook does not take messages; it is left alone for a while", slog.String("reason", r.v.reason), slog.Time("until", w.circuit.until))
	} else if was && !is {
		w.log.Info("the webhook takes messages again")
	}
	if r.v.ok || r.dead {
		delete(w.held, t.item.ID)
		return
	}
	t.item.Tries++
	t.due = now.Add(max(backoff(t.item.Tries-1, w.cfg.FirstWait, w.cfg.MostWait), r.v.after))
}
