package chaos

import (
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/e2e/rig"
)

// await is rig.Await.
var await = rig.Await

// TestAPubSubLinkGoesDeaf black-holes the pub/sub link of a node while its
// other connections work: what others append reaches its clients once the node
// has noticed that its own probe does not come back.
func TestAPubSubLinkGoesDeaf(t *testing.T) {
	t.Parallel()
	const talkers = 4
	w := begin(t, "pub/sub link black-holed", plan{links: true, talkers: talkers, member: func(i int, opt *client.ResilientOptions) {
		if i < talkers && i%2 == 1 { // all talk at the first node, so that the second hears of nothing else
			opt.URLs[0], opt.URLs[1] = opt.URLs[1], opt.URLs[0]
		}
	}})
	rounds := often(1, 10)
	for range rounds {
		w.goesOn(20)
		w.links[1].deafen()
		began := time.Now()
		w.crowd.More(40)
		w.crowd.Abreast()
		took := time.Since(began)
		t.Logf("the clients of the deaf node had everything %v after its link went silent", took.Round(time.Millisecond))
		if took > 15*time.Second { // 6 s to notice are promised, then it reads; a busy machine gets more
			t.Errorf("the clients of the deaf node had everything only %v after its link went silent", took)
		}
	}
	w.settle(rounds, 0)
}

// TestANodeIsCutOffFromRedis partitions one node: its senders are told
// `unavailable`, the others go on, and afterwards everyone has everything.
func TestANodeIsCutOffFromRedis(t *testing.T) {
	t.Parallel()
	w := begin(t, "node cut off from Redis", plan{nodes: 3, clients: 9, talkers: 6, links: true, giveUp: 10 * time.Second})
	rounds := often(1, 3)
	for k := range rounds {
		l := w.links[k%len(w.links)]
		told := w.crowd.Told(chat.CodeUnavailable)
		w.crowd.Midway()
		l.cut()
		lasts(t, time.Duration(often(5, 60))*time.Second)
		l.mend()
		if w.crowd.Told(chat.CodeUnavailable) == told {
			t.Error("nobody was told that the store is unavailable")
		}
		w.goesOn(60)
	}
	w.settle(rounds, 0)
}

// TestAnswersOfRedisAreLost lets a node's requests through and swallows the
// answers: what it asks for happens, and nobody is told. The resends must not
// post it again.
func TestAnswersOfRedisAreLost(t *testing.T) {
	t.Parallel()
	w := begin(t, "answers of Redis swallowed", plan{links: true, giveUp: 10 * time.Second})
	rounds := often(1, 10)
	for k := range rounds {
		l := w.links[k%len(w.links)]
		told := w.crowd.Told(chat.CodeUnavailable)
		w.crowd.Midway()
		l.mute()
		await(t, "senders are told that the store is unavailable", func() bool { return w.crowd.Told(chat.CodeUnavailable) >= told+10 })
		l.unmute()
		w.goesOn(40)
	}
	if rep := w.settle(rounds, 0); rep.Repeats == 0 {
		t.Error("no resend was answered with what had happened, so the fault hit nothing")
	}
}
