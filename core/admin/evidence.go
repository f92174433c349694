package admin

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/moderation"
)

// Evidence is what the node keeps of judged messages; *evidence.Keeper is one.
type Evidence interface {
	Get(id chat.MessageID) (evidence.Record, error)
	List(q evidence.Query) (evidence.Page, error)
	Erase(s evidence.Selection) (int, error)
}

// Replayer judges a recorded message again; *moderation.Stage does.
type Replayer interface {
	Replay(d *moderation.Decision, input []byte) (moderation.Replay, error)
}

func (a *API) evidence() {
	on := func(h http.HandlerFunc) http.HandlerFunc {
		return a.private(func(w http.ResponseWriter, r *http.Request) {
			if a.d.Evidence == nil {
				fail(w, http.StatusNotFound, "no_evidence", "this node keeps no evidence: evidence.keep is none")
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
	a.d.Log.Info("evidence erased through the admin API", slog.Int("records", n), slog.String("by", string(cmp.Or(chat.UserID(r.Header.Get(authorHeader)), admin))))
	reply(w, 200, map[string]int{"erased": n})
}

const notKept = "this node keeps no evidence of that message: it was let pass, is too old, was erased, or was judged on another node"

// Explanation is a recorded decision and what the plugins in force say of the
// same bytes now.
type Explanation struct {
	Record   evidence.Record   `json:"record"`
	Digest   string            `json:"digest"` // of the decision record, as reviews name it
	Replayed moderation.Replay `json:"replayed"`
}

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
	replayed, err := a.d.Replay.Replay(&rec.Decision, rec.Input)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	reply(w, 200, Explanation{Record: rec, Digest: rec.Digest(), Replayed: replayed})
}
