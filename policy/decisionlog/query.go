package decisionlog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"parley/core/chat"
)

// Query selects records; a field that is zero does not select.
type Query struct {
	ID       string
	User     chat.UserID
	Room     chat.RoomID
	Message  chat.MessageID
	Reason   string // code of one of the reasons, or an event
	Action   string
	Revision string
	Denied   bool // refusals alone
	Events   bool // events alone
	Since    time.Time
	Before   string // the Next of an earlier page
	Limit    int    // 1 to MaxPage
}

// MaxPage bounds one page.
const MaxPage = 1000

// maxScan bounds the bytes of files that one query reads.
const maxScan = 256 << 20

// ErrQuery is wrapped by the error of a query that cannot be.
var ErrQuery = errors.New("no such query")

func (q *Query) check() error {
	switch {
	case q.Limit < 1 || q.Limit > MaxPage:
		return fmt.Errorf("%w: limit %d is not within 1 and %d", ErrQuery, q.Limit, MaxPage)
	case q.Before != "" && !validID(q.Before):
		return fmt.Errorf("%w: before %.32q is not what an earlier answer gave as next", ErrQuery, q.Before)
	case q.ID != "" && !validID(q.ID):
		return fmt.Errorf("%w: id %.32q is not that of a decision", ErrQuery, q.ID)
	}
	return nil
}

// Matches reports whether r is selected.
func (q *Query) Matches(r *Record) bool {
	if q.ID != "" && r.ID != q.ID || q.Before != "" && r.ID >= q.Before || r.Time.Before(q.Since) ||
		q.Revision != "" && r.Revision != q.Revision || q.Events && r.IsDecision() || q.Denied && (!r.IsDecision() || r.Allow) ||
		q.Message != "" && r.Message != q.Message {
		return false
	}
	if q.Reason != "" && string(r.Event) != q.Reason && !slices.ContainsFunc(r.Reasons, func(c chat.Reason) bool { return c.Code == q.Reason }) {
		return false
	}
	if r.Input == nil {
		return q.User == "" && q.Room == "" && q.Action == ""
	}
	return (q.User == "" || r.Input.Subject.ID == string(q.User)) &&
		(q.Room == "" || r.Input.Resource.Type == "room" && r.Input.Resource.ID == string(q.Room)) &&
		(q.Action == "" || r.Input.Action.Name == q.Action)
}

// Page is what a query found: the newest that match, the oldest of them first.
type Page struct {
	Records []*Record `json:"records"`
	// Next is where to go on into the past, "" at the end.
	Next string `json:"next"`
}

// Find answers a query from memory and from the files.
func (l *Log) Find(q Query) (Page, error) {
	page := Page{Records: []*Record{}}
	if err := q.check(); err != nil {
		return page, err
	}
	var found []*Record // the newest first
	l.mu.Lock()
	oldest := firstID(time.Now().Add(time.Hour))
	for at := l.next; at > l.oldestLocked() && len(found) < q.Limit; at-- {
		r := l.ring[(at-1)%uint64(len(l.ring))]
		oldest = r.ID
		if q.Matches(r) {
			found = append(found, r)
		}
	}
	l.mu.Unlock()
	var err error
	if len(found) < q.Limit && l.files != nil {
		found, page.Next, err = l.files.find(q, oldest, found)
	}
	if len(found) == q.Limit {
		page.Next = found[len(found)-1].ID
	}
	slices.Reverse(found)
	page.Records = append(page.Records, found...)
	return page, err
}

// find appends what the files have of q before the id oldest, the newest first.
// next is where to go on when it has read enough for once.
func (f *files) find(q Query, oldest string, found []*Record) (_ []*Record, next string, err error) {
	scanned := int64(0)
	for _, name := range f.list() {
		start := startOf(name)
		if start >= oldest || q.Before != "" && start >= q.Before {
			continue
		}
		f.mu.Lock()
		scanned += f.bytes[name]
		f.mu.Unlock()
		if scanned > maxScan && next != "" {
			return found, next, nil
		}
		next = start
		var part []*Record
		err = readFile(filepath.Join(f.dir, name), func(r *Record) bool {
			if r.ID < oldest && q.Matches(r) {
				part = append(part, r)
				if len(part) >= 2*q.Limit {
					part = slices.Clone(part[len(part)-q.Limit:])
				}
			}
			return r.ID < oldest
		})
		if err != nil {
			return found, "", err
		}
		slices.Reverse(part)
		if found = append(found, part...); len(found) >= q.Limit {
			return found[:q.Limit], "", nil
		}
		if start < firstID(q.Since) && !q.Since.IsZero() {
			break
		}
	}
	return found, "", nil
}

// maxFollowers bounds who may follow at a time.
const maxFollowers = 16

// ErrFollowers says that too many follow already.
var ErrFollowers = errors.New("as many as may already follow the decision log")

// Follow calls ready, unless there are too many followers, and then f for each
// record that q selects and that is added from then on, until ctx ends, one of
// them fails or the log ends. skipped is how many records were passed over since
// the last call, because f was slower than the log.
func (l *Log) Follow(ctx context.Context, q Query, ready func() error, f func(r *Record, skipped uint64) error) error {
	l.mu.Lock()
	if l.followers >= maxFollowers {
		l.mu.Unlock()
		return ErrFollowers
	}
	l.followers++
	at := l.next
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.followers--
		l.mu.Unlock()
	}()
	if err := ready(); err != nil {
		return err
	}
	for {
		l.mu.Lock()
		more, skipped := l.more, uint64(0)
		if oldest := l.oldestLocked(); at < oldest {
			skipped, at = oldest-at, oldest
		}
		var r *Record
		for ; at < l.next && r == nil; at++ {
			if next := l.ring[at%uint64(len(l.ring))]; q.Matches(next) {
				r = next
			}
		}
		l.mu.Unlock()
		if r != nil {
			if err := f(r, skipped); err != nil {
				return err
			}
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		case <-l.ended:
			return nil
		}
	}
}

// EndFollowers has every Follow return, now and later. It may be called twice.
func (l *Log) EndFollowers() { l.endOnce.Do(func() { close(l.ended) }) }
