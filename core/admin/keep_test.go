package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"parley/core/archive"
	"parley/core/chat"
	"parley/core/journal"
	"parley/core/session"
)

// say appends messages of ann to the room, which is made.
func (n *node) say(room chat.RoomID, texts ...string) {
	n.t.Helper()
	n.ok(request{method: "PUT", path: "/v1/rooms/" + string(room), body: "{}"}, 201, nil)
	rm := must(n.hub.Room(n.t.Context(), room))
	for _, text := range texts {
		e := journal.Entry{ID: chat.MessageID(string(room) + " " + text), Kind: journal.KindMessage, From: "ann", Time: 5, Nonce: text, Text: text, Outcome: chat.Accepted}
		must(n.hub.Record(n.t.Context(), rm, e, false))
	}
}

func TestErase(t *testing.T) {
	n := start(t)
	n.say("lobby", "one", "two", "three")
	n.say("attic", "four")
	for _, body := range []string{
		`{}`, `{"room":"lobby"}`, `{"seqs":[1]}`, `{"room":"lobby","seqs":[2],"user":"ann"}`, `{"user":"ann","seqs":[2]}`, `{"room":"No Room","seqs":[2]}`,
		`{"user":"no user"}`, `{"user":"ann","reason":"` + strings.Repeat("x", 501) + `"}`,
	} {
		n.refused(request{method: "POST", path: "/v1/erase", body: body}, 400, "bad_request", "")
	}
	n.refused(request{method: "POST", path: "/v1/erase", body: `{"room":"nowhere","seqs":[2]}`}, 404, "no_room", "nowhere")
	var done session.Erased
	n.ok(request{method: "POST", path: "/v1/erase", body: `{"room":"lobby","seqs":[2,77],"reason":"by request"}`}, 200, &done)
	if done != (session.Erased{Entries: 1, Rooms: 1}) {
		t.Errorf("got %+v, want one entry", done)
	}
	es := n.entries("lobby")
	if last := es[len(es)-1]; es[1].Outcome != chat.Erased || es[1].Text != "" || last.Kind != journal.KindErase || last.From != "admin" || last.Text != "by request" {
		t.Errorf("got %+v", es)
	}
	done = session.Erased{}
	n.ok(request{method: "POST", path: "/v1/erase", body: `{"user":"ann"}`}, 200, &done)
	if done != (session.Erased{Entries: 3, Rooms: 2}) {
		t.Errorf("got %+v, want the three that were left", done)
	}
	for _, room := range []chat.RoomID{"lobby", "attic"} {
		for _, e := range n.entries(room) {
			if e.From == "ann" && e.Text != "" {
				t.Errorf("room %s: got %+v", room, e)
			}
		}
	}
}

func TestBackupAndRestore(t *testing.T) {
	n := start(t)
	n.say("lobby", "one", "two")
	n.say("attic", "three")
	status, b := n.send(request{method: "GET", path: "/v1/backup"})
	h, sum, err := archive.Verify(bytes.NewReader(b))
	if status != 200 || err != nil || sum != (archive.Summary{Rooms: 2, Entries: 5}) || h.Server != "test" || h.Created.IsZero() {
		t.Fatalf("got status %d, %+v, %+v, %v", status, h, sum, err)
	}
	was := must(n.journal.Info(t.Context(), "lobby")).Top.Epoch
	n.ok(request{method: "PUT", path: "/v1/rooms/lobby", body: `{"title":"later"}`}, 200, nil)
	n.refused(request{method: "POST", path: "/v1/restore", body: string(b[:len(b)/3])}, 400, "bad_archive", "at byte")
	n.refused(request{method: "POST", path: "/v1/restore", body: "not an archive"}, 400, "bad_archive", "at byte 0")
	if now := must(n.journal.Info(t.Context(), "lobby")).Top; now.Epoch != was || now.Seq != 4 {
		t.Errorf("got %+v after what was refused", now)
	}
	var got archive.Summary
	n.ok(request{method: "POST", path: "/v1/restore", body: string(b)}, 200, &got)
	if got != sum {
		t.Errorf("restored %+v, want %+v", got, sum)
	}
	if now := must(n.journal.Info(t.Context(), "lobby")).Top; now.Epoch == was || now.Seq != 3 {
		t.Errorf("got %+v, want 3 of a new epoch", now)
	}
}

// TestBackupThatFails ends the connection, so that nobody takes it for whole.
func TestBackupThatFails(t *testing.T) {
	n := start(t, func(d *Deps) { d.Journal = forgetful{d.Journal} })
	n.say("lobby", "one")
	req := must(http.NewRequestWithContext(t.Context(), "GET", "http://"+n.addr+"/v1/backup", nil))
	req.Header.Set("Authorization", "Bearer "+n.token)
	resp, err := n.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
	}
	if err == nil {
		t.Error("the answer came to a proper end")
	}
}

// forgetful is a journal that cannot list what waits for review.
type forgetful struct{ journal.Journal }

func (forgetful) Reviews(context.Context, chat.RoomID) ([]journal.Review, []journal.Review, error) {
	return nil, nil, errors.New("gone")
}
