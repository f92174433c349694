package checker

import (
	"testing"

	"parley/core/chat"
	"parley/core/wire"
)

// heldRun is a client whose one message is held; posted is the entry in the
// history, if there is one.
func heldRun(posted *wire.EntryEvent, answers ...wire.AckEvent) Run {
	l := NewLog("ann's")
	l.Observe(&wire.WelcomeEvent{User: "ann"})
	for i := range answers {
		l.Sending("lobby", "n1")
		l.Answered("lobby", "n1", &answers[i], false)
	}
	h := History{Room: "lobby", Epoch: "e", Entries: []wire.EntryEvent{{Seq: 1, ID: "id-1", From: "mia"}}}
	if posted != nil {
		h.Entries = append(h.Entries, *posted)
	}
	return Run{Logs: []*Log{l}, Histories: []History{h}}
}

func TestHeld(t *testing.T) {
	held := wire.AckEvent{Epoch: "e", MessageID: "id-2", ReviewID: "id-2", Outcome: chat.Held}
	again := held
	again.Repeat = true
	other := held
	other.MessageID = "id-9"
	rejected := held
	rejected.Outcome = chat.Rejected
	expired := held
	expired.Outcome = chat.Expired
	entry := &wire.EntryEvent{Seq: 2, ID: "id-2", From: "ann", Nonce: "n1"}
	stranger := &wire.EntryEvent{Seq: 2, ID: "id-7", From: "ann", Nonce: "n1"}
	accepted := wire.AckEvent{Epoch: "e", Seq: 2, MessageID: "id-2", Outcome: chat.Accepted, Repeat: true}
	for _, tt := range []struct {
		name  string
		run   Run
		held  int
		found Fault // "" for none
	}{
		{"it waits", heldRun(nil, held), 1, ""},
		{"it waits and was resent", heldRun(nil, held, again), 1, ""},
		{"it was approved", heldRun(entry, held), 1, ""},
		{"it was approved and resent", heldRun(entry, held, accepted), 0, ""},
		{"it was rejected", heldRun(nil, held, rejected), 0, ""},
		{"it has expired", heldRun(nil, held, expired), 0, ""},
		{"it has expired and stands there", heldRun(entry, held, expired), 0, RefusedPosted},
		{"it was rejected and stands there", heldRun(entry, held, rejected), 0, RefusedPosted},
		{"it was held twice", heldRun(nil, held, other), 1, AnswerChanged},
		{"it stands there under another id", heldRun(stranger, held), 1, AnswerChanged},
		{"it was acknowledged and then held", heldRun(entry, accepted, held), 0, AnswerChanged},
		{"it was approved and is lost", heldRun(nil, held, accepted), 0, Lost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rep := Check(tt.run)
			if rep.Held != tt.held {
				t.Errorf("got %d held, want %d", rep.Held, tt.held)
			}
			if err := rep.Err(); (err != nil) != (tt.found != "") || tt.found != "" && rep.Found[tt.found] == 0 {
				t.Errorf("got %v, want the fault %q", rep.Found, tt.found)
			}
		})
	}
}
