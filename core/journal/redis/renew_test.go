package redis_test

import (
	"testing"

	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// TestRenewBeginsAnEpochOnlyWhereSomethingIsLost asks with what a node knows,
// before and after the store has lost entries or everything.
func TestRenewBeginsAnEpochOnlyWhereSomethingIsLost(t *testing.T) {
	for name, lose := range map[string]func(*redistest.Server){
		"a tail": func(s *redistest.Server) {
			s.Do("XDEL", "parley:{lobby}:log", "0-3")
			s.Do("HSET", "parley:{lobby}:meta", "top", "2", "id", "b")
		},
		"everything": func(s *redistest.Server) { s.Do("FLUSHALL") },
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Options{})
			j := node(t, quick(server.URL()), journalredis.Defaults())
			ctx := within(t)
			var known journal.Position
			for _, id := range []string{"a", "b", "c"} {
				r := message("lobby", id)
				rc, err := j.Append(ctx, r)
				if err != nil {
					t.Fatal(err)
				}
				known = journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
			}
			top := func() journal.Position {
				t.Helper()
				if err := j.Renew(ctx, "lobby", known); err != nil {
					t.Fatal(err)
				}
				info, err := j.Info(ctx, "lobby")
				if err != nil {
					t.Fatal(err)
				}
				return info.Top
			}
			if got := top(); got != known {
				t.Fatalf("with nothing lost the room stands at %+v, want %+v", got, known)
			}
			lose(server)
			first := top()
			if first.Epoch == "" || first.Epoch == known.Epoch || first.Seq != 0 {
				t.Errorf("the room stands at %+v, want the beginning of another epoch than %s", first, known.Epoch)
			}
			if again := top(); again != first { // another node that knew the old epoch
				t.Errorf("asked again, the room stands at %+v, want %+v", again, first)
			}
			if rooms, err := j.Rooms(ctx, "", 10); err != nil || len(rooms) != 1 {
				t.Errorf("got rooms %v, %v, want the one", rooms, err)
			}
		})
	}
}
