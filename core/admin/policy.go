package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"parley/core/chat"
	"parley/policy/decisionlog"
)

// Decisions are what the node remembers of the policy's answers;
// *decisionlog.Log is one.
type Decisions interface {
	Find(q decisionlog.Query) (decisionlog.Page, error)
	Follow(ctx context.Context, q decisionlog.Query, ready func() error, f func(r *decisionlog.Record, skipped uint64) error) error
}

// Policy is the policy in use, as far as operators act on it. Its documents
// are JSON-able. Errors that wrap ErrNotFound or ErrConflict say so to the
// caller; any other is the server's.
type Policy interface {
	// Accept lets a revision that the guard refused go live, in by's name.
	Accept(revision, by string) (full string, err error)
	// Audit sums up what was recorded since a moment and replays it.
	Audit(ctx context.Context, since time.Time) (any, error)
	// Explain says how a recorded decision came about.
	Explain(ctx context.Context, id string) (any, error)
}

// Errors that a Policy may wrap.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("not now")
)

func (a *API) policy() {
	a.mux.HandleFunc("GET /v1/policy/decisions", a.private(a.decisions))
	a.mux.HandleFunc("GET /v1/policy/explain/{id}", a.private(a.explainDecision))
	a.mux.HandleFunc("GET /v1/policy/audit", a.private(a.audit))
	a.mux.HandleFunc("POST /v1/policy/accept", a.accept)
}

// decisions answers with a page, or with ?follow=1 with one record a line for
// as long as the caller listens.
func (a *API) decisions(w http.ResponseWriter, r *http.Request) {
	if a.d.Decisions == nil {
		fail(w, http.StatusNotFound, "no_decisions", "this node keeps no decisions")
		return
	}
	q, err := decisionQuery(r.URL.Query())
	if err != nil {
		fail(w, 400, "bad_request", err.Error())
		return
	}
	if r.URL.Query().Get("follow") == "1" {
		a.follow(w, r, q)
		return
	}
	page, err := a.d.Decisions.Find(q)
	switch {
	case errors.Is(err, decisionlog.ErrQuery):
		fail(w, 400, "bad_request", err.Error())
	case err != nil:
		a.unavailable(w, err)
	default:
		reply(w, 200, page)
	}
}

// decisionQuery reads what to look for.
func decisionQuery(v url.Values) (decisionlog.Query, error) {
	q := decisionlog.Query{
		ID: v.Get("id"), User: chat.UserID(v.Get("user")), Room: chat.RoomID(v.Get("room")), Message: chat.MessageID(v.Get("message")),
		Reason: v.Get("reason"), Action: v.Get("action"), Revision: v.Get("revision"), Before: v.Get("before"), Limit: defaultPage,
	}
	for name, to := range map[string]*bool{"denied": &q.Denied, "events": &q.Events} {
		switch s := v.Get(name); s {
		case "", "0", "false":
		case "1", "true":
			*to = true
		default:
			return q, fmt.Errorf("%s %q is neither 1 nor 0", name, clip(s))
		}
	}
	if s := v.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > decisionlog.MaxPage {
			return q, fmt.Errorf("limit %q is not within 1 and %d", clip(s), decisionlog.MaxPage)
		}
		q.Limit = n
	}
	var err error
	q.Since, err = since(v)
	return q, err
}

// since reads a time in Unix milliseconds; none is the beginning.
func since(v url.Values) (time.Time, error) {
	s := v.Get("since")
	if s == "" {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms < 0 {
		return time.Time{}, fmt.Errorf("since %q is no time in Unix milliseconds", clip(s))
	}
	return time.UnixMilli(ms), nil
}

// followWrite bounds how long a follower may take to read a record.
const followWrite = 10 * time.Second

func (a *API) follow(w http.ResponseWriter, r *http.Request, q decisionlog.Query) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the server's bound is for requests; this one goes on
	w.Header().Set("Content-Type", "application/x-ndjson")
	ready := func() error { // the caller knows from here on that nothing escapes it
		w.WriteHeader(200)
		return control.Flush()
	}
	out := json.NewEncoder(w)
	err := a.d.Decisions.Follow(r.Context(), q, ready, func(rec *decisionlog.Record, skipped uint64) error {
		if err := control.SetWriteDeadline(time.Now().Add(followWrite)); err != nil {
			return err
		}
		if skipped > 0 {
			if err := out.Encode(map[string]uint64{"skipped": skipped}); err != nil {
				return err
			}
		}
		if err := out.Encode(rec); err != nil {
			return err
		}
		return control.Flush()
	})
	if errors.Is(err, decisionlog.ErrFollowers) {
		fail(w, http.StatusServiceUnavailable, "overloaded", err.Error())
	}
}

func (a *API) explainDecision(w http.ResponseWriter, r *http.Request) {
	if a.d.Policy == nil {
		fail(w, http.StatusNotFound, "no_decisions", "this node keeps no decisions")
		return
	}
	v, err := a.d.Policy.Explain(r.Context(), r.PathValue("id"))
	a.answer(w, v, err)
}

func (a *API) audit(w http.ResponseWriter, r *http.Request) {
	at, err := since(r.URL.Query())
	switch {
	case err != nil:
		fail(w, 400, "bad_request", err.Error())
	case a.d.Policy == nil:
		fail(w, http.StatusNotFound, "no_decisions", "this node keeps no decisions")
	default:
		v, err := a.d.Policy.Audit(r.Context(), at)
		a.answer(w, v, err)
	}
}

// answer replies with what a Policy gave.
func (a *API) answer(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, ErrNotFound):
		fail(w, http.StatusNotFound, "not_found", err.Error())
	case errors.Is(err, ErrConflict):
		fail(w, http.StatusConflict, "conflict", err.Error())
	case errors.Is(err, decisionlog.ErrQuery):
		fail(w, 400, "bad_request", err.Error())
	case err != nil:
		a.unavailable(w, err)
	default:
		reply(w, 200, v)
	}
}

// accept takes {"revision": "git:…", "by": "olga"}.
func (a *API) accept(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Revision string `json:"revision"`
		By       string `json:"by"`
	}
	if !decode(w, r, &in) {
		return
	}
	if a.d.Policy == nil {
		fail(w, http.StatusNotFound, "not_found", "this node has no policy to change")
		return
	}
	full, err := a.d.Policy.Accept(in.Revision, in.By)
	a.answer(w, map[string]string{"revision": full, "by": in.By}, err)
}
