package checker

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"parley/core/wire"
)

func TestALogSurvivesItsFile(t *testing.T) {
	var file bytes.Buffer
	l := NewLog("ann's phone")
	l.Tee(&file)
	for _, ev := range []any{
		&wire.WelcomeEvent{User: "ann"},
		&wire.JoinedEvent{Room: "r", Epoch: "e", Seq: 4, LastID: "i4", Recovered: true},
		&wire.EntryEvent{Room: "r", Seq: 5, ID: "i5", From: "ann", Nonce: "n"},
		&wire.ResetEvent{Room: "r", Epoch: "e2", Seq: 1},
		&wire.PresenceEvent{Room: "r"},
		&wire.LeftEvent{Room: "r"},
	} {
		l.Observe(ev)
	}
	l.Sending("r", "n")
	l.Answered("r", "n", &wire.AckEvent{Epoch: "e", Seq: 5, MessageID: "i5", Repeat: true}, false)
	l.Answered("r", "n2", nil, true)
	l.Answered("r", "n3", nil, false)
	l.Settles("r")
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	want := []Kind{Begin, Joined, Entry, Reset, Left, Send, Ack, Refused, Unknown, Settled}
	recs := l.Records()
	if len(recs) != len(want) {
		t.Fatalf("got %d records, want %d", len(recs), len(want))
	}
	for i, k := range want {
		if recs[i].Kind != k {
			t.Errorf("record %d: got %s, want %s", i, recs[i].Kind, k)
		}
		if i > 0 && recs[i].At < recs[i-1].At {
			t.Errorf("record %d: time runs backwards", i)
		}
	}
	file.WriteString(`{"kind":"entry","seq`) // the writer was killed here
	got, err := ReadLog(&file)
	if err != nil {
		t.Fatal(err)
	}
	if got.Client != l.Client || got.Clock != l.Clock || !reflect.DeepEqual(got.Records(), recs) {
		t.Errorf("got %+v, want %+v", got.Records(), recs)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestABrokenFileIsTold(t *testing.T) {
	l := NewLog("ann")
	l.Tee(broken{})
	l.Settles("r")
	if err := l.Err(); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v, want disk full", err)
	}
}

func TestReadLogSaysWhatIsWrong(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "no first line"},
		{"no header", "hello\n", "line 1"},
		{"bad record", "{\"client\":\"ann\"}\n{\"kind\":1}\n", "log of ann: line 2"},
		{"first line too long", strings.Repeat("x", maxLine+1), "too long"},
		{"a later line too long", "{\"client\":\"ann\"}\n" + strings.Repeat("x", maxLine+1), "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ReadLog(strings.NewReader(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte("{\"client\":\"ann\",\"clock\":\"c\"}\n{\"kind\":\"begin\",\"from\":\"ann\"}\n{\"kind\":\"joined\",\"room\":\"r\",\"epoch\":\"e\"}\n{\"kind\":\"entry\",\"room\":\"r\",\"seq\":9}\n"))
	f.Add([]byte("{}\n{\"kind\":\"entry\",\"seq\":18446744073709551615}\n{\"kind\":\"joined\",\"recovered\":true}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ReadLog(bytes.NewReader(b))
		if err != nil {
			return
		}
		_ = Check(Run{Logs: []*Log{l}, Histories: []History{{Room: "r", Epoch: "e"}}}).String()
	})
}
