package session

import (
	"fmt"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/state"
)

func TestHistoryPages(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.HistoryEntries = 5 })
	w.post("lobby", 9) // seqs 2 to 10, 1 being the room's settings
	c := w.guest("ann")
	defer c.end()
	tests := []struct {
		ask         string
		history     *int
		first, last uint64
		more        bool
	}{
		{``, nil, 6, 10, true},
		{`,"limit":2`, nil, 9, 10, true},
		{`,"limit":900`, nil, 6, 10, true},
		{`,"before":6`, nil, 1, 5, false},
		{`,"before":6,"limit":3`, nil, 3, 5, true},
		{`,"before":3`, nil, 1, 2, false},
		{`,"before":1`, nil, 0, 0, false},
		{`,"before":99`, nil, 6, 10, true},
		{`,"after":5`, nil, 6, 10, false},
		{`,"after":4`, nil, 5, 9, true},
		{`,"after":8,"limit":1`, nil, 9, 9, true},
		{`,"after":10`, nil, 0, 0, false},
		{`,"after":99`, nil, 0, 0, false},
		{``, ptr(3), 8, 10, false},
		{``, ptr(0), 0, 0, false},
		{``, ptr(-1), 0, 0, false},
		{``, ptr(5), 6, 10, false},
		{``, ptr(6), 6, 10, true},
		{``, ptr(1000), 6, 10, true},
		{`,"before":9`, ptr(3), 8, 8, false},
		{`,"before":8`, ptr(3), 0, 0, false},
		{`,"after":1`, ptr(3), 8, 10, false},
		{`,"after":1,"limit":2`, ptr(3), 8, 9, true},
	}
	for _, tt := range tests {
		name := tt.ask
		if tt.history != nil {
			name += fmt.Sprint(" of ", *tt.history)
		}
		t.Run(name, func(t *testing.T) {
			w.rule(gate.HistoryRead, gate.Decision{Allow: true, Obligations: gate.Obligations{History: tt.history}})
			e := c.do(`{"type":"history","room":"lobby"%s}`, tt.ask)
			if e.Type != "history" || e.Epoch == "" || e.More != tt.more {
				t.Errorf("got %s with more %v, want history with more %v", e.Type, e.More, tt.more)
			}
			checkEntries(t, e.Entries, tt.first, tt.last)
		})
	}
}

func checkEntries(t *testing.T, es []event, first, last uint64) {
	t.Helper()
	if first == 0 {
		if len(es) != 0 {
			t.Errorf("got %d entries, want none", len(es))
		}
		return
	}
	if len(es) != int(last-first+1) {
		t.Fatalf("got %d entries, want %d to %d: %+v", len(es), first, last, es)
	}
	for i, e := range es {
		if e.Seq != first+uint64(i) || e.Room != "lobby" || e.ID == "" {
			t.Errorf("entry %d: got %+v, want seq %d", i, e, first+uint64(i))
		}
	}
}

// Entries so large that a page ends at the journal's byte bound are all read
// by going on from page to page, in both directions.
func TestHistoryOfLargeEntriesIsReadInPages(t *testing.T) {
	const n = 40
	w := newWorld(t, func(s *setup) { s.cfg.TextBytes = 16 << 10 })
	poster := w.guest("poster")
	defer poster.end()
	text := strings.Repeat("x", 15<<10)
	for range n - 1 {
		poster.do(`{"type":"send","room":"lobby","text":%q}`, text)
	}
	c := w.guest("ann")
	defer c.end()
	pages := 0
	for after, want := uint64(0), uint64(1); ; pages++ {
		e := c.do(`{"type":"history","room":"lobby","after":%d}`, max(after, 1))
		if after == 0 {
			want = 2
		}
		for _, entry := range e.Entries {
			if entry.Seq != want {
				t.Fatalf("upwards: got seq %d, want %d", entry.Seq, want)
			}
			want, after = want+1, entry.Seq
		}
		if !e.More {
			if want != n+1 {
				t.Errorf("upwards: the log ends at %d, want %d", want-1, n)
			}
			break
		}
	}
	if pages < 2 {
		t.Errorf("got %d further pages, want several: the bound was not reached", pages)
	}
	for before, want := uint64(0), uint64(n); ; {
		e := c.do(`{"type":"history","room":"lobby","before":%d}`, before)
		for i := len(e.Entries) - 1; i >= 0; i-- {
			if e.Entries[i].Seq != want {
				t.Fatalf("downwards: got seq %d, want %d", e.Entries[i].Seq, want)
			}
			before, want = want, want-1
		}
		if !e.More {
			if want != 0 {
				t.Errorf("downwards: the log begins at %d, want 1", want+1)
			}
			break
		}
	}
}

func TestHistoryBeyondRetention(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.disk.MaxEntries = 20 })
	w.post("lobby", 400)
	c := w.guest("ann")
	defer c.end()
	info, err := w.store.Info(t.Context(), "lobby")
	if err != nil || info.First < 2 {
		t.Fatalf("got first %d, %v, want what retention has cut", info.First, err)
	}
	e := c.do(`{"type":"history","room":"lobby","after":1,"limit":3}`)
	checkEntries(t, e.Entries, info.First, info.First+2)
	e = c.do(`{"type":"history","room":"lobby","before":%d}`, info.First+2)
	checkEntries(t, e.Entries, info.First, info.First+1)
	if e.More {
		t.Error("got more below the oldest entry that is kept")
	}
}

func TestHistoryRefused(t *testing.T) {
	w := newWorld(t, nil)
	c := w.guest("ann")
	defer c.end()
	checkError(t, c.do(`{"type":"history","room":"nowhere"}`), chat.CodeNoRoom)
	w.configure("lobby", state.DefaultSettings())
	w.rule(gate.HistoryRead, no("private", "the past is private"))
	if e := c.do(`{"type":"history","room":"lobby"}`); e.Code != "denied" || e.Text != "the past is private" {
		t.Errorf("got %+v, want denied with the policy's words", e)
	}
	w.allow(nil)
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"away", journal.ErrUnavailable, "cannot reach its store"},
		{"damaged", &journal.DamagedError{Room: "lobby", Seq: 7, Detail: "checksum"}, "entry 7 "},
		{"damaged somewhere", journal.ErrDamaged, "damaged"},
	} {
		fail := func(journal.Journal, chat.RoomID) error { return tt.err }
		w.store.onRead.Store(&fail)
		e := c.do(`{"type":"history","room":"lobby"}`)
		checkError(t, e, chat.CodeUnavailable)
		if !strings.Contains(e.Text, tt.want) || strings.Contains(e.Text, "checksum") || e.Retryable != (tt.name == "away") {
			t.Errorf("%s: got %q, retryable %v", tt.name, e.Text, e.Retryable)
		}
	}
}
