package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/client"
)

// A bit of the store's file flips while the server is down. The entry is named and not
// served, the rest of the room is, and the operator sees it where operators look.
func TestADamagedRecordIsShownToTheOperator(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.enters("lobby")
	bad, _ := ann.says("lobby", "this one will be damaged")
	good, _ := ann.says("lobby", "this one stays")
	if got := n.Metric("parley_store_commits_total"); got < 2 {
		t.Errorf("got %v commits, want at least one for each message", got)
	}
	n.Stop()

	file := filepath.Join(n.Data(), "parley.db")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.ReplaceAll(data, []byte("will be damaged"), []byte("will be damageD"))
	if bytes.Equal(flipped, data) {
		t.Fatal("the text is not in the file")
	}
	if err := os.WriteFile(file, flipped, 0o600); err != nil {
		t.Fatal(err)
	}

	n.Start()
	bob := visit(t, client.Options{URL: n.WSURL(), Guest: "bob"})
	var refused *chat.Error
	if _, err := bob.History(within(t), "lobby", 0, bad.Seq-1, 1); !errors.As(err, &refused) || refused.Code != chat.CodeUnavailable || !strings.Contains(refused.Text, "damaged") {
		t.Errorf("history of the damaged entry: got %v, want unavailable", err)
	}
	h, err := bob.History(within(t), "lobby", 0, bad.Seq, 1)
	if err != nil || len(h.Entries) != 1 || h.Entries[0].Seq != good.Seq {
		t.Errorf("history after it: got %+v, %v, want seq %d", h, err, good.Seq)
	}
	if got := n.Metric("parley_store_damaged_total"); got != 1 {
		t.Errorf("got %v damaged records, want 1", got)
	}
	if code, body := n.Get("/readyz"); code != 200 || !strings.Contains(body, "damaged records were met: 1") {
		t.Errorf("/readyz: got %d %s, want a note", code, body)
	}
	n.Stop()
}
