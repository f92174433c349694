package redis

import (
	"fmt"
	"strings"
	"testing"
)

func testRouter(t *testing.T, url string) *router {
	t.Helper()
	cfg := Defaults()
	cfg.URL = url
	d, err := cfg.dialling()
	if err != nil {
		t.Fatal(err)
	}
	r := newRouter(d, func(*server, bool) {})
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func TestReadSlots(t *testing.T) {
	node := func(host any, port int64) []any { return []any{host, port, "an id", []any{}} }
	half := []any{int64(0), int64(8191), node("10.0.0.1", 7000), node("", 7001)}
	rest := []any{int64(8192), int64(16383), node(nil, 7002)}
	for _, tt := range []struct {
		name  string
		reply []any
		want  string // "primaries | replicas | owner of the first, last slot", or part of the error
	}{
		{"two", []any{rest, half}, "10.0.0.1:7000 h:7002 | h:7001 | 0 1"},
		{"one", []any{half}, "10.0.0.1:7000 | h:7001 | 0 65535"},
		{"nobody knows", []any{[]any{int64(0), int64(16383), node("?", 7000)}}, "h:7000 |  | 0 0"},
		{"none", nil, "no node of the cluster has slots"},
		{"no list", []any{"x"}, "told string"},
		{"no node", []any{[]any{int64(0), int64(1)}}, "2 parts"},
		{"a slot too many", []any{[]any{int64(0), int64(16384), node("a", 1)}}, "the slots 0 to 16384"},
		{"backwards", []any{[]any{int64(2), int64(1), node("a", 1)}}, "the slots 2 to 1"},
		{"words for numbers", []any{[]any{"0", int64(1), node("a", 1)}}, "the slots 0 to 1"},
		{"a short node", []any{[]any{int64(0), int64(1), []any{"a"}}}, "1 parts for a node"},
		{"no port", []any{[]any{int64(0), int64(1), node("a", 0)}}, "the port 0"},
		{"too many", make([]any, slotCount+1), "16385 runs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, others, err := readSlots(testRouter(t, "redis-cluster://h"), "h:6379", tt.reply)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got the error %q, want %q", err, tt.want)
				}
				return
			}
			var primaries []string
			for _, s := range l.primaries {
				primaries = append(primaries, s.addr)
			}
			got := fmt.Sprintf("%s | %s | %d %d", strings.Join(primaries, " "), strings.Join(others, " "), l.owner[0], l.owner[slotCount-1])
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLayoutsAreCompared(t *testing.T) {
	r := testRouter(t, "redis-cluster://h")
	read := func(first, port int64) *layout {
		l, _, err := readSlots(r, "h:6379", []any{[]any{first, int64(16383), []any{"a", port}}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	base := read(0, 1)
	if !base.same(read(0, 1)) || base.same(read(1, 1)) || base.same(read(0, 2)) || (*layout)(nil).same(base) {
		t.Error("two layouts are the same only with the same primaries and slots")
	}
	if _, err := read(1, 1).at(0); err == nil || !strings.Contains(err.Error(), "slot 0 has no primary") {
		t.Errorf("a slot without a primary: got %v", err)
	}
}

func TestClosedRouter(t *testing.T) {
	r := testRouter(t, "redis-cluster://h")
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.server("a:1"); err == nil {
		t.Error("a closed router made a server")
	}
	if _, err := r.find(t.Context(), 0); err == nil {
		t.Error("a closed router found a server")
	}
}
