package main

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestSetKey(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"{}", "{\n  \"k\": 1\n}"},
		{" { } ", " {\n  \"k\": 1\n } "},
		{"{\n  \"a\": [1,  2]\n}\n", "{\n  \"k\": 1,\n  \"a\": [1,  2]\n}\n"},
		{`{"a":2}`, "{\n  \"k\": 1,\n  \"a\":2}"},
		{`{"a":{"k":3}, "k" : {"deep": [true]} , "b": 4}`, `{"a":{"k":3}, "k" : 1 , "b": 4}`},
	} {
		got, err := setKey([]byte(tt.in), "k", 1)
		if err != nil || string(got) != tt.want {
			t.Errorf("%q: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "[]", "{", `{"a"`, `{"a":}`, `{"a":1`, "7"} {
		if got, err := setKey([]byte(bad), "k", 1); err == nil {
			t.Errorf("%q: got %q and no error", bad, got)
		}
	}
}

// FuzzSetKey: what comes out is what encoding/json makes of the same object
// with the member set, wherever the input was an object.
func FuzzSetKey(f *testing.F) {
	f.Add(`{"a": 1, "k": [2]}`)
	f.Add("{\r\n}")
	f.Fuzz(func(t *testing.T, in string) {
		var want map[string]any
		if json.Unmarshal([]byte(in), &want) != nil || want == nil {
			return
		}
		out, err := setKey([]byte(in), "k", "v")
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		var got map[string]any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		again, err := setKey(out, "k", "v")
		if err != nil || string(again) != string(out) {
			t.Fatalf("%q, then %q, %v", out, again, err)
		}
		for key := range want {
			if key != "k" && !reflect.DeepEqual(got[key], want[key]) {
				t.Fatalf("%q became %q: %q changed", in, out, key)
			}
		}
	})
}
