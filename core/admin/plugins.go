package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"parley/core/chat"
	"parley/plugins"
)

// Plugins is what the API needs of the plugins; *plugins.Catalog has it.
type Plugins interface {
	Status() []plugins.Status
	Steer(ctx context.Context, name string, o plugins.Order) error
}

func (a *API) plugins() {
	if a.d.Plugins == nil {
		return
	}
	a.mux.HandleFunc("GET /v1/plugins", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"plugins": a.d.Plugins.Status()})
	})
	a.mux.HandleFunc("POST /v1/plugins/{name}/rollout", a.rollout)
}

// rollout moves a plugin's rollout and answers with the plugin as it is then.
func (a *API) rollout(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Action  string `json:"action"`
		Stage   string `json:"stage"`
		Percent int    `json:"percent"`
		Reason  string `json:"reason"`
	}
	if by := r.Header.Get(authorHeader); by != "" && !chat.ValidUser(chat.UserID(by)) {
		fail(w, 400, "bad_request", fmt.Sprintf("%s %q is no user name", authorHeader, clip(by)))
		return
	}
	if !decode(w, r, &in) {
		return
	}
	name := r.PathValue("name")
	err := a.d.Plugins.Steer(r.Context(), name, plugins.Order{Action: in.Action, Stage: in.Stage, Percent: in.Percent, By: string(author(r)), Reason: in.Reason})
	switch {
	case errors.Is(err, plugins.ErrNoPlugin):
		fail(w, http.StatusNotFound, "no_plugin", fmt.Sprintf("there is no plugin %q", clip(name)))
		return
	case errors.Is(err, plugins.ErrOrder):
		fail(w, http.StatusBadRequest, "bad_request", err.Error())
		return
	case err != nil:
		fail(w, http.StatusConflict, "conflict", err.Error())
		return
	}
	a.d.Log.Info("plugin rollout ordered through the admin API", slog.String("plugin", name), slog.String("action", in.Action),
		slog.String("stage", in.Stage), slog.Int("percent", in.Percent), slog.String("by", string(author(r))), slog.String("reason", in.Reason))
	for _, s := range a.d.Plugins.Status() {
		if s.Name == name {
			reply(w, 200, s)
			return
		}
	}
	fail(w, http.StatusNotFound, "no_plugin", fmt.Sprintf("the plugin %q was removed meanwhile", clip(name)))
}
