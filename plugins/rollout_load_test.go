package plugins_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// Two hundred swaps under load, by every road a version can take: each message
// is judged once, wholly by one version, and by one that could be in force.
func TestRolloutUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v0", abi.Flag), "")
	var stop atomic.Bool
	var wg sync.WaitGroup
	var judged, decided atomic.Int64
	var newest atomic.Int64 // version that may have been seen
	for g := range 2 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				m := &moderation.Message{Room: "lobby", User: chat.UserID(fmt.Sprintf("user%d-%d", g, i%50)), Kind: "message", Text: "hello"}
				r, err := w.stage.Judge(t.Context(), m, nil)
				judged.Add(1)
				counting := 0
				for _, rec := range r.Records {
					if rec.Part == moderation.Enforce || rec.Part == moderation.Canary {
						counting++
					}
				}
				if err != nil || r.Verdict != abi.Flag || len(r.Reasons) != 1 || counting != 1 || len(r.Records) > 2 {
					t.Errorf("got %s by %+v, %v: want one version to decide", r.Verdict, r.Records, err)
					return
				}
				var n int64
				if _, err := fmt.Sscanf(r.Reasons[0].Text, "v%d", &n); err != nil || n > newest.Load() {
					t.Errorf("got a verdict of %q, the newest version is v%d", r.Reasons[0].Text, newest.Load())
					return
				}
				decided.Add(1)
				runtime.Gosched() // or the loader waits for a processor after each system call
			}
		})
	}
	for i := 1; i <= 200; i++ {
		newest.Store(int64(i))
		switch wasm := version(fmt.Sprintf("v%d", i), abi.Flag); i % 4 {
		case 0: // at once
			w.drop(wasm, "")
		case 1: // all the way
			w.drop(wasm, `{"rollout":{}}`)
			w.mustOrder(plugins.Order{Action: "promote"})
			w.mustOrder(plugins.Order{Action: "set", Percent: 50})
			w.mustOrder(plugins.Order{Action: "promote"})
		case 2: // and back
			w.drop(wasm, `{"rollout":{"stage":"canary","percent":50}}`)
			w.mustOrder(plugins.Order{Action: "rollback"})
		case 3: // replaced while on trial
			w.drop(wasm, `{"rollout":{"stage":"canary","percent":30}}`)
		}
	}
	stop.Store(true)
	wg.Wait()
	if judged.Load() != decided.Load() || judged.Load() == 0 {
		t.Errorf("got %d of %d messages decided by one version", decided.Load(), judged.Load())
	}
	if who, _ := w.say("ann"); who != "v200" {
		t.Errorf("got %s in the end", who)
	}
}

// What a message costs with a plugin in force, and with another version beside
// it in each stage.
func BenchmarkRollout(b *testing.B) {
	for _, stage := range []string{"enforce", "shadow", "canary"} {
		b.Run(stage, func(b *testing.B) {
			w := newWorld(b)
			write(b, w.dir, "p.wasm", masker())
			if err := w.Load(b.Context()); err != nil {
				b.Fatal(err)
			}
			if stage != "enforce" {
				write(b, w.dir, "p.json", []byte(`{"rollout":{"stage":"`+stage+`"}}`))
				if err := w.Load(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			users := make([]chat.UserID, 1000)
			for i := range users {
				users[i] = chat.UserID(fmt.Sprintf("user%d", i))
			}
			m := &moderation.Message{Room: "lobby", Kind: "message", Text: "the quick brown fox jumps over the lazy dog and goes home"}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.User = users[i%len(users)]
				if _, err := w.stage.Judge(b.Context(), m, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
