package client

import (
	"reflect"
	"testing"

	"parley/core/wire"
)

func TestDecode(t *testing.T) {
	tests := []struct {
		name, frame string
		want        any
	}{
		{"message", `{"type":"message","room":"r","seq":3,"id":"i","ts":5}`, &wire.EntryEvent{Type: "message", Room: "r", Seq: 3, ID: "i", TS: 5}},
		{"type last", `{"seq":3,"type":"reset"}`, &wire.ResetEvent{Type: "reset", Seq: 3}},
		{"escaped type", `{"type":"\u0070ing","ts":1}`, &wire.PingEvent{Type: "ping", TS: 1}},
		{"left", `{"type":"left"}`, &wire.LeftEvent{Type: "left"}},
		{"put out", `{"type":"left","room":"r","code":"banned","text":"spam","by":"mia","until_ts":7}`,
			&wire.LeftEvent{Type: "left", Room: "r", Code: "banned", Text: "spam", By: "mia", UntilTS: 7}},
		{"kick", `{"type":"kick","room":"r","seq":4,"id":"i","ts":5,"changes":[{"key":"role/bob"}]}`,
			&wire.EntryEvent{Type: "kick", Room: "r", Seq: 4, ID: "i", TS: 5, Changes: []wire.ChangeEvent{{Key: "role/bob"}}}},
		{"refreshed", `{"type":"refreshed","id":"3","expires_ts":9}`, &wire.RefreshedEvent{Type: "refreshed", ID: "3", ExpiresTS: 9}},
		{"unknown", `{"type":"dance","x":1}`, &UnknownEvent{Type: "dance", Raw: []byte(`{"type":"dance","x":1}`)}},
		{"unknown and broken", `{"type":"dance",`, nil},
		{"not JSON", `hello`, nil},
		{"wrong field", `{"type":"ack","seq":"x"}`, nil},
		{"members", `{"type":"members","count":2}`, &wire.MembersEvent{Type: "members", Count: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decode([]byte(tt.frame))
			if (err != nil) != (tt.want == nil) || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"type":"message","room":"r","seq":3,"id":"i","ts":5}`))
	f.Add([]byte(`{"type":"left","room":"r","code":"denied","reasons":[{"code":"c"}],"until_ts":-1}`))
	f.Add([]byte(`{"type":"kick","changes":[{"key":"role/bob","value":null},{"key":7}]}`))
	f.Add([]byte(`{"type":"refreshed","roles":null,"expires_ts":1e99}`))
	f.Add([]byte(`{"type":"x`))
	f.Add([]byte(`{"type":"\u0070ing"}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, err := decode(b)
		if (ev == nil) == (err == nil) {
			t.Fatalf("got %v and %v", ev, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	frame := []byte(`{"type":"message","room":"lobby","seq":43,"id":"0192f0c1-0000-7000-8000-000000000000","from":"ann","ts":1732000000123,"nonce":"n1","text":"a message of the usual length, about a line"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}
