package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"parley/core/chat"
	"parley/policy"
)

// Pinning is what the API needs to pin the policy to a commit; *source.Source
// has it where a repository is followed.
type Pinning interface {
	// Pin makes the commit of that name decide until Unpin. policy.Problems mean
	// that it is at fault.
	Pin(ctx context.Context, revision, by, reason string) error
	Unpin(ctx context.Context) error
}

func (a *API) pins() {
	if a.d.Pin == nil {
		return
	}
	a.mux.HandleFunc("POST /v1/policy/pin", a.pin)
	a.mux.HandleFunc("POST /v1/policy/unpin", a.unpin)
}

// pin answers with the status once the commit decides.
func (a *API) pin(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Revision string `json:"revision"`
		Reason   string `json:"reason"`
	}
	if !validAuthor(w, r) || !decode(w, r, &in) {
		return
	}
	in.Revision = strings.ToLower(strings.TrimPrefix(in.Revision, "git:"))
	if len(in.Revision) != 40 || strings.Trim(in.Revision, "0123456789abcdef") != "" {
		fail(w, 400, "bad_request", "revision is not the whole name of a commit, 40 hexadecimal digits")
		return
	}
	if len(in.Reason) > maxPinReason {
		fail(w, 400, "bad_request", "the reason is too long")
		return
	}
	a.pinned(w, r, "pinned", in.Revision, in.Reason, a.d.Pin.Pin(r.Context(), in.Revision, string(author(r)), in.Reason))
}

// maxPinReason bounds what is kept of why, in bytes.
const maxPinReason = 300

func (a *API) unpin(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Reason string `json:"reason"`
	}
	if !validAuthor(w, r) || !decode(w, r, &in) {
		return
	}
	a.pinned(w, r, "unpinned", "", in.Reason, a.d.Pin.Unpin(r.Context()))
}

// pinned answers an order that has been carried out, or not.
func (a *API) pinned(w http.ResponseWriter, r *http.Request, what, revision, reason string, err error) {
	var problems policy.Problems
	switch {
	case errors.As(err, &problems):
		fail(w, http.StatusUnprocessableEntity, "policy_refused", err.Error())
		return
	case err != nil:
		fail(w, http.StatusConflict, "conflict", err.Error())
		return
	}
	a.d.Log.Info("policy "+what+" through the admin API", slog.String("revision", revision), slog.String("by", string(author(r))), slog.String("reason", reason))
	if status, ok := a.d.Status["policy/status"]; ok {
		reply(w, 200, status())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// validAuthor refuses an author that is no user name.
func validAuthor(w http.ResponseWriter, r *http.Request) bool {
	by := r.Header.Get(authorHeader)
	if by == "" || chat.ValidUser(chat.UserID(by)) {
		return true
	}
	fail(w, 400, "bad_request", authorHeader+" is no user name: "+clip(by))
	return false
}
