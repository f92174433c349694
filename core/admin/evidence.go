package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// Evidence is what the node keeps of judged messages; *evidence.Keeper is one.
type Evidence interface {
	Get(id chat.MessageID) (evidence.Record, error)
	List(q evidence.Query) (evidence.Page, error)
	Erase(s evidence.Selection) (int, error)
}

// Replayer judges a recorded message again, and says what plugins are told of
// one; *moderation.Stage does.
type Replayer interface {
	Input(m *moderation.Message) ([]byte, error)
	Replay(ctx context.Context, d *moderation.Decision, input []byte) (moderation.Replay, error)
}

func (a *API) evidence() {
	on := func(h http.HandlerFunc) http.HandlerFunc {
		return a.private(func(w http.ResponseWriter, r *http.Request) {
			if a.d.Evidence == nil {
				fail(w, http.StatusNotFound, "no_evidence", "this node keeps no evidence: evidence.keep is none and evidence.decisions.keep is off")
				return
			}
			h(w, r)
		})
	}
	a.mux.HandleFunc("GET /v1/evidence", on(a.listEvidence))
	a.mux.HandleFunc("DELETE /v1/evidence", on(a.eraseEvidence))
	a.mux.HandleFunc("DELETE /v1/evidence/{id}", on(a.eraseEvidence))
	a.mux.HandleFunc("GET /v1/explain/{id}", on(a.explain))
}

// EvidencePage is one page of records, the oldest first. Next is where to go
// on, "" at the end; a page may be empty and not the last.
type EvidencePage struct {
	Records []evidence.Record `json:"records"` // input is the ABI input, in base64
	Next    string            `json:"next"`
}

// defaultPage is how many records a page holds where the request does not say.
const defaultPage = 100

func (a *API) listEvidence(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	q := evidence.Query{Room: chat.RoomID(query.Get("room")), After: query.Get("after"), Limit: defaultPage}
	if q.Room != "" && !chat.ValidRoom(q.Room) {
		fail(w, 400, "bad_request", fmt.Sprintf("%q is no room name", clip(string(q.Room))))
		return
	}
	if s := query.Get("since"); s != "" {
		at, err := strconv.ParseInt(s, 10, 64)
		if err != nil || at < 0 {
			fail(w, 400, "bad_request", fmt.Sprintf("since %q is no time in Unix milliseconds", clip(s)))
			return
		}
		q.Since = at
	}
	if s := query.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > evidence.MaxPage {
			fail(w, 400, "bad_request", fmt.Sprintf("limit %q is not within 1 and %d", clip(s), evidence.MaxPage))
			return
		}
		q.Limit = n
	}
	page, err := a.d.Evidence.List(q)
	switch {
	case errors.Is(err, evidence.ErrCursor):
		fail(w, 400, "bad_request", "after is not a cursor this node gave; begin without one")
	case err != nil:
		a.unavailable(w, err)
	default:
		if page.Records == nil {
			page.Records = []evidence.Record{}
		}
		reply(w, 200, EvidencePage{page.Records, page.Next})
	}
}

func (a *API) eraseEvidence(w http.ResponseWriter, r *http.Request) {
	by := author(r)
	if !chat.ValidUser(by) {
		fail(w, 400, "bad_request", fmt.Sprintf("%s %q is no user name", authorHeader, clip(string(by))))
		return
	}
	query := r.URL.Query()
	s := evidence.Selection{ID: chat.MessageID(r.PathValue("id")), User: chat.UserID(query.Get("user")), Room: chat.RoomID(query.Get("room"))}
	if s.Empty() {
		fail(w, 400, "bad_request", "say what to erase: DELETE /v1/evidence/ID, or /v1/evidence with ?user=NAME, ?room=NAME or both")
		return
	}
	n, err := a.d.Evidence.Erase(s)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	if n == 0 && s.ID != "" {
		fail(w, http.StatusNotFound, "no_evidence", notKept)
		return
	}
	a.d.Log.Info("evidence erased through the admin API", slog.Int("records", n), slog.String("by", string(by)))
	reply(w, 200, map[string]int{"erased": n})
}

const notKept = "this node keeps nothing about that message: the record is too old, was erased or was lost, it was posted at another node, or while this node had no plugins, so that none judged it"

// notJudged says of a record that no plugin judged the message, and why; "" where one
// did.
func notJudged(rec *evidence.Record) string {
	switch c := rec.Context; {
	case len(rec.Plugins) > 0:
		return ""
	case c == nil:
		return "no plugin judged it"
	case c.Exempt:
		return fmt.Sprintf("no plugin judged it: the policy wanted none of the %d to (the obligation plugins)", c.Idle)
	default:
		return fmt.Sprintf("no plugin judged it: none of the %d was for this room and kind of message, and in force or on trial for this person", c.Idle)
	}
}

// Where the text of an explanation is from.
const (
	fromEvidence = "evidence" // what was judged, as it was kept
	fromHistory  = "history"  // the room's log; its hash is that of what was judged
)

// Explanation is a recorded decision and what the same versions of the plugins
// say of the same bytes now.
type Explanation struct {
	Record evidence.Record `json:"record"`
	Digest string          `json:"digest"`              // of the decision record, as reviews name it
	From   string          `json:"text_from,omitempty"` // "evidence" or "history"; absent where there is no text
	// NotJudged says that no plugin judged the message, and why; Replayed is empty then.
	NotJudged string `json:"not_judged,omitempty"`
	// NotReplayed says why there is nothing in Replayed.
	NotReplayed string            `json:"not_replayed,omitempty"`
	Replayed    moderation.Replay `json:"replayed"`
}

// explainTime bounds one explanation: versions that are not loaded any more may
// have to be compiled.
const explainTime = 30 * time.Second

func (a *API) explain(w http.ResponseWriter, r *http.Request) {
	rec, err := a.d.Evidence.Get(chat.MessageID(r.PathValue("id")))
	if errors.Is(err, evidence.ErrNotFound) {
		fail(w, http.StatusNotFound, "no_evidence", notKept)
		return
	}
	if err != nil {
		a.unavailable(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainTime)
	defer cancel()
	e := Explanation{Record: rec, Digest: rec.Digest(), From: fromEvidence, NotJudged: notJudged(&rec)}
	if len(rec.Input) == 0 {
		if e.Record.Input, e.NotReplayed, err = a.restore(ctx, &rec); err != nil {
			a.unavailable(w, err)
			return
		}
		if e.From = fromHistory; e.NotReplayed != "" {
			e.From = ""
			reply(w, 200, e)
			return
		}
	}
	if e.NotJudged != "" {
		reply(w, 200, e)
		return
	}
	if e.Replayed, err = a.d.Replay.Replay(ctx, &rec.Decision, e.Record.Input); err != nil {
		a.unavailable(w, err)
		return
	}
	reply(w, 200, e)
}

// restore makes what the plugins saw again, from the text in the room's log.
// why says that this is not possible.
func (a *API) restore(ctx context.Context, rec *evidence.Record) (input []byte, why string, err error) {
	if rec.Context == nil {
		return nil, "the record holds neither what plugins saw nor what they were told beside the text", nil
	}
	if rec.Verdict == abi.Deny.String() {
		return nil, "the original is not kept and the message was not posted", nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	entry, err := findEntry(ctx, a.d.Journal, rec.Room, rec.ID, rec.Time)
	if err != nil || entry == nil {
		return nil, "the original is not kept and the message is not in the room's history: it was not posted, or is older than what the room keeps", err
	}
	sum := sha256.Sum256([]byte(entry.Text))
	if hex.EncodeToString(sum[:]) != rec.Text {
		return nil, "the original is not kept, and the text in the room's history is not what was judged: parts of it are masked", nil
	}
	m := rec.Message(entry.Text)
	if input, err = a.d.Replay.Input(&m); err != nil {
		return nil, "what plugins saw cannot be made again: " + err.Error(), nil
	}
	return input, "", nil
}
