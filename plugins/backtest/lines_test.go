package backtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"parley/plugins/backtest"
)

// all reads a source to its end.
func all(t *testing.T, s backtest.Source) ([]backtest.Record, error) {
	t.Helper()
	var out []backtest.Record
	for {
		page, err := s.Next(t.Context())
		out = append(out, page...)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

func line(t testing.TB, r backtest.Record) string {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestLines(t *testing.T) {
	want := record("m1", "lobby", "hello")
	text := strings.Repeat(line(t, want), 2500) + "\n" + `{"id":"m2","room":"staff","ts":5,"input":"AA==","verdict":"deny"}`
	got, err := all(t, backtest.Lines(strings.NewReader(text)))
	if err != nil || len(got) != 2501 || got[0].ID != "m1" || string(got[0].Input) != string(want.Input) || got[2500].Room != "staff" {
		t.Errorf("got %d records, %v", len(got), err)
	}
	if got, err := all(t, backtest.Filtered(backtest.Lines(strings.NewReader(text)), "staff", 5)); err != nil || len(got) != 1 {
		t.Errorf("filtered by room: got %d records, %v", len(got), err)
	}
	if got, err := all(t, backtest.Filtered(backtest.Lines(strings.NewReader(text)), "", 6)); err != nil || len(got) != 2500 {
		t.Errorf("filtered by time: got %d records, %v", len(got), err)
	}
	for name, bad := range map[string]string{
		"line 2 is no record":         line(t, want) + "nonsense\n",
		"line 1 is no record":         `{"input":"not base64!"}`,
		"line 1 has more than 419430": strings.Repeat(" ", 5<<20),
	} {
		if _, err := all(t, backtest.Lines(strings.NewReader(bad))); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add("{}\n")
	f.Add(`{"id":"m","room":"r","ts":1,"input":"AQAAAAcAAAA="}`)
	f.Fuzz(func(t *testing.T, text string) {
		records, err := all(t, backtest.Lines(strings.NewReader(text)))
		if err != nil {
			return
		}
		r, err := backtest.Run(t.Context(), backtest.Defaults(), words(0, 1), words(0, 1), &pages{records}, nil)
		if err != nil || r.Records+r.Malformed != uint64(len(records)) || r.Changed != 0 {
			t.Errorf("got %+v, %v from %d records", r, err, len(records))
		}
	})
}
