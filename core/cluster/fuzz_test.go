package cluster

import (
	"testing"
	"time"
)

// FuzzRecord holds that a record is read within its bounds or refused, and is
// the same when it is written again.
func FuzzRecord(f *testing.F) {
	f.Add("a-0123abcd", []byte(`{"format":1,"started":"2026-11-26T14:00:00Z","info":{"policy":{"revision":"x"}}}`))
	f.Add("a-0123abcd", []byte(`{"format":1}`))
	f.Add("a-0123abcd", []byte(`{"format":2}`))
	f.Add("a-0123abcd", []byte(`{"format":1,"info":null}`))
	f.Add("", []byte(`{}`))
	f.Add("a-0123abcd", []byte("{\"format\":1,\"info\":{\"\xff\":1}}"))
	f.Fuzz(func(t *testing.T, id string, b []byte) {
		n, err := decodeNode(id, b, time.Second)
		if err != nil {
			if n.ID != "" {
				t.Fatalf("got %+v with %v", n, err)
			}
			return
		}
		if !validID(n.ID) || len(n.Info) > maxInfoKeys || len(b) > maxRecordBytes {
			t.Fatalf("got %+v", n)
		}
		var infos []info
		for k, v := range n.Info {
			infos = append(infos, info{k, func() any { return v }})
		}
		r := record{Started: n.Started}
		again, err := r.encode(infos)
		if err != nil {
			return // an info beyond its bound: what others say is read as it is
		}
		m, err := decodeNode(id, again, time.Second)
		if err != nil || len(m.Info) != len(n.Info) || !m.Started.Equal(n.Started) {
			t.Fatalf("written again: got %+v, %v, want %+v", m, err, n)
		}
	})
}

// FuzzAnswer holds that no reply of Redis is more than an error.
func FuzzAnswer(f *testing.F) {
	f.Add("a-0123abcd", int64(5), `{"format":1}`, "b-0123abcd", "", uint8(0))
	f.Add("x", int64(-5), "{", "x", "x", uint8(3))
	f.Fuzz(func(t *testing.T, id string, lease int64, text, id2, text2 string, drop uint8) {
		list := []any{int64(1), int64(0), id, lease, text, id2, lease, text2}
		list = list[:len(list)-int(drop)%len(list)]
		a, err := readAnswer(list)
		if err == nil && len(a.nodes) > 2 {
			t.Fatalf("got %+v", a)
		}
		list[int(drop)%len(list)] = nil
		if _, err := readAnswer(list); err == nil {
			t.Fatal("nil in the reply: got no error")
		}
	})
}
