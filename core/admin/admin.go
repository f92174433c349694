// Package admin is the operator's HTTP API on its own listener: status,
// metrics and profiles to read, rooms to change.
//
// Reading needs no token from loopback. There the Host header is checked, so
// that a web page cannot read it through the browser of somebody on the same
// machine (DNS rebinding); a request that a browser sends for another site, or
// that a proxy has forwarded, is not taken for local. Everything else needs
// the admin token as "Authorization: Bearer TOKEN".
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"parley/core/archive"
	"parley/core/chat"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/room"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// storeTimeout bounds what one request may wait for the journal.
const storeTimeout = 5 * time.Second

// Token checks the admin token in constant time.
type Token interface{ Valid(presented string) bool }

// Deps are what the API speaks of. Status functions return JSON-able values.
type Deps struct {
	Token   Token
	Metrics http.Handler
	Hub     *room.Hub
	Journal journal.Journal
	Create  Creator
	Plugins Plugins       // nil: none are shown
	Decide  Decider       // of held messages
	Why     Whyer         // what keeps people from posting
	Erase   Eraser        // of what people wrote
	Absent  archive.Notes // nil where nobody is told of what concerns them while they are away
	Version string        // of the server, for archives
	// Evidence may be nil: then none is kept. Replay judges it again.
	Evidence Evidence
	Replay   Replayer
	// Decisions and Policy may be nil in tests.
	Decisions Decisions
	Policy    Policy
	Status    map[string]func() any          // path below /v1/ -> document, e.g. "policy/status"
	Ready     func(context.Context) []string // what is wrong; empty = ready
	Notes     func() []string                // what operators should know though the node is ready; may be nil
	Pin       Pinning                        // nil: there is nothing to pin
	Gate      Gate                           // nil: nobody is asked about calls
	Log       *slog.Logger
}

// Creator makes rooms; *session.Server does.
type Creator interface {
	CreateRoom(ctx context.Context, r *room.Room, set Settings, by, owner chat.UserID) error
}

// API is the handler.
type API struct {
	d   Deps
	mux *http.ServeMux

	asking atomic.Bool // a stranger's question is under way
	last   atomic.Pointer[readiness]
}

// New returns the API.
func New(d Deps) *API {
	a := &API{d: d, mux: http.NewServeMux()}
	a.mux.Handle("GET /metrics", d.Metrics)
	a.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]string{"status": "ok"}) })
	a.mux.HandleFunc("GET /readyz", a.ready)
	for path, status := range d.Status {
		a.mux.HandleFunc("GET /v1/"+path, func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, status()) })
	}
	a.rooms()
	a.plugins()
	a.pins()
	a.reviews()
	a.evidence()
	a.policy()
	a.why()
	a.keep()
	a.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	a.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	a.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	a.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	a.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	a.mux.HandleFunc("PUT /v1/profiling", a.profiling)
	a.mux.HandleFunc("POST /v1/gc", a.collect)
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, 404, "not_found", fmt.Sprintf("there is no %s %s here", r.Method, r.URL.Path))
	})
	return a
}

// ServeHTTP implements http.Handler: who may ask is decided here, for every
// path.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	if stranger := !a.authorized(r) && (!reading || !local(r)); stranger && reading && probe(r.URL.Path) {
		a.probe(w, r)
		return
	} else if stranger {
		h.Set("WWW-Authenticate", `Bearer realm="parley admin"`)
		text := "send the token in data_dir/admin.token (or admin.token_file) as Authorization: Bearer TOKEN"
		if reading {
			text = "reading without a token is for loopback with a loopback Host; elsewhere " + text
		}
		fail(w, http.StatusUnauthorized, "unauthorized", text)
		return
	}
	action := gate.AdminWrite
	if reading {
		action = gate.AdminRead
	}
	if !a.permitted(w, r, action) {
		return
	}
	if r.URL.Path != restorePath { // which takes an archive, in parts that it bounds
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	}
	a.mux.ServeHTTP(w, r)
}

// probe reports whether load balancers and Kubernetes ask at a path, from other
// machines and without a token.
func probe(path string) bool { return path == "/healthz" || path == "/readyz" }

// probe answers a stranger by the status alone: why a node is not ready is
// nobody's business.
func (a *API) probe(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/readyz" && !a.readyLately(r.Context()) {
		reply(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready"})
		return
	}
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

// lately is for how long an answer to strangers holds: to ask costs a write to
// the store, and they may ask as often as they like.
const lately = 500 * time.Millisecond

// readyLately reports whether the node was ready within lately. While somebody
// finds that out, whoever comes besides is told what was so before; nobody waits.
func (a *API) readyLately(ctx context.Context) bool {
	last := a.last.Load()
	if last != nil && time.Since(last.at) < lately || !a.asking.CompareAndSwap(false, true) {
		return last != nil && last.ready
	}
	defer a.asking.Store(false)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout) // the answer is for others too
	defer cancel()
	ready := len(a.d.Ready(ctx)) == 0
	a.last.Store(&readiness{ready, time.Now()})
	return ready
}

// readiness is whether the node wanted clients at a moment.
type readiness struct {
	ready bool
	at    time.Time
}

func (a *API) authorized(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return ok && strings.EqualFold(scheme, "Bearer") && a.d.Token.Valid(strings.TrimSpace(token))
}

// local reports whether the request came over loopback and was meant for it.
func local(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") { // Fetch Metadata: set by browsers, out of a page's reach
	case "", "none", "same-origin":
	default:
		return false
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	status, answer := 200, map[string]any{"status": "ready"}
	if wrong := a.d.Ready(ctx); len(wrong) > 0 {
		status, answer = http.StatusServiceUnavailable, map[string]any{"status": "not ready", "reasons": wrong}
	}
	if a.d.Notes != nil {
		if notes := a.d.Notes(); len(notes) > 0 {
			answer["notes"] = notes
		}
	}
	reply(w, status, answer)
}

// profiling switches the mutex and block profiles: {"mutex": N, "block": NS},
// see runtime.SetMutexProfileFraction and SetBlockProfileRate; 0 is off.
func (a *API) profiling(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Mutex *int `json:"mutex"`
		Block *int `json:"block"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Mutex != nil {
		runtime.SetMutexProfileFraction(max(0, *in.Mutex))
	}
	if in.Block != nil {
		runtime.SetBlockProfileRate(max(0, *in.Block))
	}
	a.d.Log.Info("profiling switched", slog.Any("mutex", in.Mutex), slog.Any("block", in.Block))
	w.WriteHeader(http.StatusNoContent)
}

// collect runs a garbage collection and gives the memory that is free to the
// operating system. Clients wait meanwhile, so it is for measurements.
func (a *API) collect(w http.ResponseWriter, _ *http.Request) {
	debug.FreeOSMemory()
	a.d.Log.Info("garbage collected on request")
	w.WriteHeader(http.StatusNoContent)
}

// decode reads a strict JSON body; on failure it has answered.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = parse(body, v)
	}
	if err == nil {
		return true
	}
	status := http.StatusBadRequest
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		status, err = http.StatusRequestEntityTooLarge, fmt.Errorf("it has more than %d bytes", big.Limit)
	}
	fail(w, status, "bad_request", "the body is not what this call takes: "+err.Error())
	return false
}

// parse decodes one JSON object without unknown members. Its errors hold
// nothing of the body but the name of a member.
func parse(body []byte, v any) error {
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '{' || !utf8.Valid(b) {
		return errors.New("send one JSON object, in UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return fmt.Errorf("%q cannot hold a JSON %s", kind.Field, kind.Value)
	case errors.As(err, &syntax):
		return fmt.Errorf("it is not valid JSON at byte %d", syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON object does not end")
	case err != nil: // an unknown member
		return errors.New(clip(strings.TrimPrefix(err.Error(), "json: ")))
	}
	if _, more := d.Token(); !errors.Is(more, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		status, b = 500, []byte(`{"code":"internal","text":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

func fail(w http.ResponseWriter, status int, code, text string) {
	reply(w, status, map[string]string{"code": code, "text": text})
}
