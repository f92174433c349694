package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"parley/core/absent"
	rds "parley/core/redis"
)

// group is the consumer group that all workers share.
const group = "webhook"

// idleConsumer is how long a consumer without entries is remembered.
const idleConsumer = time.Hour

// MaxDead bounds the dead letters; the oldest make way.
const MaxDead = 100_000

// Item is one entry of the stream in the hands of a worker.
type Item struct {
	ID    string // in the stream
	Tries int    // how often delivering it was tried in vain
	Entry absent.Entry
	Bad   error // why the entry cannot be read; then it is zero
}

// Queue is the stream as one worker sees it. An item that was read is the
// worker's until Done or Bury; Keep says from time to time that it still has it,
// or another worker takes it over. Any goroutine may call its methods.
type Queue struct {
	client   *rds.Client
	keys     absent.Keys
	consumer string
	forget   time.Duration // see idleConsumer

	mu     sync.Mutex
	cursor string // where to look on for what others have left lying
}

// NewQueue returns a queue for a worker of its own name. It asks the server
// nothing.
func NewQueue(client *rds.Client) *Queue {
	return &Queue{client: client, keys: absent.KeysOf(client.Prefix()), consumer: rand.Text(), forget: idleConsumer, cursor: "0-0"}
}

// Read hands out at most n items: new ones, and with claim first those that
// another worker has had for longer than idle without a sign of life.
func (q *Queue) Read(ctx context.Context, n int, claim bool, idle time.Duration) ([]Item, error) {
	if n < 1 {
		return nil, nil
	}
	from := ""
	if claim {
		q.mu.Lock()
		from = q.cursor
		q.mu.Unlock()
	}
	reply, err := q.client.Eval(ctx, readScript, []string{q.keys.Stream, q.keys.Tries}, group, q.consumer, n, idle.Milliseconds(), from)
	if err != nil {
		return nil, fmt.Errorf("read messages for absent people: %w", err)
	}
	list, ok := reply.([]any)
	if !ok || len(list) == 0 {
		return nil, fmt.Errorf("read messages for absent people: redis answered %T", reply)
	}
	if next, ok := list[0].(string); ok && claim {
		q.mu.Lock()
		q.cursor = next
		q.mu.Unlock()
	}
	items := make([]Item, 0, len(list)-1)
	for _, v := range list[1:] {
		it, err := parseItem(v)
		if err != nil {
			return items, fmt.Errorf("read messages for absent people: %w", err)
		}
		items = append(items, it)
	}
	return items, nil
}

// parseItem reads {id, tries, {name, value, ...}}.
func parseItem(v any) (Item, error) {
	l, _ := v.([]any)
	if len(l) != 3 {
		return Item{}, fmt.Errorf("redis answered %T with %d parts, want 3", v, len(l))
	}
	id, ok := l[0].(string)
	if !ok {
		return Item{}, fmt.Errorf("redis answered %T for an id", l[0])
	}
	it := Item{ID: id}
	if s, ok := l[1].(string); ok {
		it.Tries, _ = strconv.Atoi(s) // what is no number counts as none
	}
	kv, err := texts(l[2])
	if err == nil {
		it.Entry, err = absent.ParseFields(kv)
	}
	if err != nil {
		it.Entry, it.Bad = absent.Entry{}, err
	}
	return it, nil
}

// Keep says that the worker still has these items, and returns those that are
// its own by now: others were taken over, or dropped from the stream.
func (q *Queue) Keep(ctx context.Context, ids []string) (mine []string, err error) {
	args := []any{group, q.consumer, q.forget.Milliseconds()}
	for _, id := range ids {
		args = append(args, id)
	}
	reply, err := q.client.Eval(ctx, keepScript, []string{q.keys.Stream}, args...)
	if err == nil {
		mine, err = texts(reply)
	}
	if err != nil {
		return nil, fmt.Errorf("keep messages for absent people: %w", err)
	}
	return mine, nil
}

// Done ends an item that was delivered.
func (q *Queue) Done(ctx context.Context, id string) error {
	_, err := q.client.Eval(ctx, doneScript, []string{q.keys.Stream, q.keys.Tries, q.keys.Texts, q.keys.Uses}, group, id)
	return wrap("end a message for somebody absent", err)
}

// Text returns the text of a message, "" where it had none or it was erased. Ask
// right before an attempt.
func (q *Queue) Text(ctx context.Context, e *absent.Entry) (string, error) {
	if !e.Texted {
		return e.Text, nil // an earlier version has put the text into the stream, where it cannot be erased
	}
	reply, err := q.client.Do(ctx, "hget", q.keys.Texts, string(e.ID))
	s, _ := reply.(string)
	return s, wrap("read the text of a message for somebody absent", err)
}

// Failed counts an attempt that was in vain, also for other workers.
func (q *Queue) Failed(ctx context.Context, id string, tries int) error {
	_, err := q.client.Do(ctx, "hset", q.keys.Tries, id, tries)
	return wrap("count an attempt", err)
}

// Bury moves an item to the dead letters.
func (q *Queue) Bury(ctx context.Context, id, reason string, tries int) error {
	_, err := q.client.Eval(ctx, buryScript, []string{q.keys.Stream, q.keys.Tries, q.keys.Dead, q.keys.Counts, q.keys.Texts, q.keys.Uses},
		group, id, reason, tries, time.Now().UnixMilli(), MaxDead)
	return wrap("bury a message for somebody absent", err)
}

// Waiting returns how many items are in the stream, those in somebody's hands
// included, and how many are dead letters.
func (q *Queue) Waiting(ctx context.Context) (stream, dead int64, err error) {
	rs := q.client.Pipeline(ctx, []rds.Command{{Args: []any{"xlen", q.keys.Stream}}, {Args: []any{"xlen", q.keys.Dead}}})
	if err := errors.Join(rs[0].Err, rs[1].Err); err != nil {
		return 0, 0, fmt.Errorf("ask how many messages for absent people wait: %w", err)
	}
	stream, _ = rs[0].Value.(int64)
	dead, _ = rs[1].Value.(int64)
	return stream, dead, nil
}

// Letter is a dead letter.
type Letter struct {
	ID     string       `json:"letter"` // among the dead letters
	Reason string       `json:"reason"`
	Tries  int          `json:"tries"`
	Died   time.Time    `json:"died"`
	Entry  absent.Entry `json:"message"`
	Bad    string       `json:"problem,omitempty"` // what of it cannot be read
}

// Dead returns at most n dead letters after the one named, the oldest first; ""
// begins.
func (q *Queue) Dead(ctx context.Context, after string, n int) ([]Letter, error) {
	letters, err := q.page(ctx, q.keys.Dead, after, n)
	if err == nil {
		err = q.addTexts(ctx, letters)
	}
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return letters, nil
}

// addTexts puts the texts in that are there.
func (q *Queue) addTexts(ctx context.Context, letters []Letter) error {
	for i := range letters {
		var err error
		if letters[i].Entry.Text, err = q.Text(ctx, &letters[i].Entry); err != nil {
			return err
		}
	}
	return nil
}

// page returns at most n entries of either stream after the one named, as letters.
func (q *Queue) page(ctx context.Context, stream, after string, n int) ([]Letter, error) {
	from := "-"
	if after != "" {
		from = "(" + after
	}
	reply, err := q.client.Do(ctx, "xrange", stream, from, "+", "count", n)
	if err != nil {
		return nil, err
	}
	list, ok := reply.([]any)
	if !ok && reply != nil {
		return nil, fmt.Errorf("redis answered %T", reply)
	}
	letters := make([]Letter, 0, len(list))
	for _, v := range list {
		l, err := parseLetter(v)
		if err != nil {
			return nil, err
		}
		letters = append(letters, l)
	}
	return letters, nil
}

// parseLetter reads {id, {name, value, ...}}.
func parseLetter(v any) (Letter, error) {
	pair, _ := v.([]any)
	if len(pair) != 2 {
		return Letter{}, fmt.Errorf("redis answered %T for a letter", v)
	}
	id, ok := pair[0].(string)
	if !ok {
		return Letter{}, fmt.Errorf("redis answered %T for an id", pair[0])
	}
	l := Letter{ID: id}
	kv, err := texts(pair[1])
	if err != nil {
		l.Bad = err.Error()
		return l, nil
	}
	for i := 0; i+1 < len(kv); i += 2 {
		switch kv[i] {
		case "reason":
			l.Reason = kv[i+1]
		case "tries":
			l.Tries, _ = strconv.Atoi(kv[i+1])
		case "died":
			if ms, err := strconv.ParseInt(kv[i+1], 10, 64); err == nil {
				l.Died = time.UnixMilli(ms).UTC()
			}
		}
	}
	if l.Entry, err = absent.ParseFields(kv); err != nil {
		l.Entry, l.Bad = absent.Entry{}, err.Error()
	}
	return l, nil
}

// maxRevive bounds the letters put back by one command.
const maxRevive = 256

// Revive puts dead letters back into the stream, to be delivered as if they were
// new, and returns how many there were.
func (q *Queue) Revive(ctx context.Context, ids []string) (revived int, err error) {
	for len(ids) > 0 {
		n := min(len(ids), maxRevive)
		args := make([]any, n)
		for i, id := range ids[:n] {
			args[i] = id
		}
		reply, err := q.client.Eval(ctx, reviveScript, []string{q.keys.Stream, q.keys.Dead}, args...)
		if err != nil {
			return revived, fmt.Errorf("retry dead letters: %w", err)
		}
		k, _ := reply.(int64)
		revived += int(k)
		ids = ids[n:]
	}
	return revived, nil
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
