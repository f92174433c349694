// Package release watches a new release on trial: a few nodes of the new
// version (the canary) beside those in force. It asks Prometheus what share of
// the commands failed at the canary and how long sends took there, compares
// that with bounds and with the nodes in force, and says whether the canary
// must be taken back.
//
// It decides only over what it can see: a window with too few commands decides
// nothing, and neither does a Prometheus that does not answer.
package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config says what is watched and what is too much. Decode it over Defaults.
type Config struct {
	// Prometheus is the base URL of the server that scrapes the nodes.
	Prometheus string
	// Canary and Stable are label matchers that select the nodes of either
	// release, such as release="canary".
	Canary, Stable string

	ErrorRate   float64       // share of commands that may fail at the canary
	ErrorFactor float64       // and at most so many times the share at the stable nodes; 0: no such bound
	P99         time.Duration // from a send's arrival to its answer, at the canary
	P99Factor   float64       // and at most so many times that of the stable nodes; 0: no such bound
	Restarts    int           // starts of canary processes within a window beyond which it is taken back

	Window   time.Duration // what is looked at each time
	Every    time.Duration // how often
	Breaches int           // windows in a row beyond a bound that are a verdict
	Least    float64       // commands at the canary below which a window decides nothing
	For      time.Duration // how long the trial takes
}

// Defaults returns the bounds for ordinary use.
func Defaults() Config {
	return Config{
		Canary: `release="canary"`, Stable: `release="stable"`,
		ErrorRate: 0.01, ErrorFactor: 3, P99: 500 * time.Millisecond, P99Factor: 2, Restarts: 3,
		Window: 2 * time.Minute, Every: 15 * time.Second, Breaches: 2, Least: 100, For: 30 * time.Minute,
	}
}

func (c Config) check() error {
	switch {
	case c.Prometheus == "":
		return errors.New("the address of Prometheus is empty; want a URL such as http://prometheus:9090")
	case c.Canary == "" || c.Stable == "":
		return errors.New(`a release has no label matcher; want one such as release="canary"`)
	case strings.ContainsAny(c.Canary+c.Stable, "{}"):
		return errors.New(`label matchers stand without braces, such as release="canary"`)
	case c.ErrorRate < 0 || c.ErrorRate > 1 || math.IsNaN(c.ErrorRate):
		return fmt.Errorf("error rate %v: want a share from 0 to 1", c.ErrorRate)
	case c.P99 <= 0:
		return fmt.Errorf("p99 %v: want a time above 0", c.P99)
	case c.ErrorFactor < 0 || c.P99Factor < 0 || c.Restarts < 0 || c.Least < 0:
		return errors.New("a factor, the restarts or the least commands are below 0")
	case c.Window < time.Second || c.Every <= 0 || c.For < c.Every:
		return fmt.Errorf("window %v, every %v, for %v: want a window of at least 1s, and a trial of at least one look", c.Window, c.Every, c.For)
	case c.Breaches < 1:
		return fmt.Errorf("breaches %d: want at least 1", c.Breaches)
	}
	return nil
}

// Verdict is how a trial ended.
type Verdict int

// The verdicts.
const (
	// Unknown: too little was seen to say anything.
	Unknown Verdict = iota
	// Good: the trial is over, and the last windows kept the bounds.
	Good
	// Bad: the canary must be taken back.
	Bad
)

// String names the verdict.
func (v Verdict) String() string { return [...]string{"unknown", "good", "bad"}[v] }

// Seen is what one look saw of one release in its window.
type Seen struct {
	Commands float64       // that arrived
	Failed   float64       // of them, those whose failure is the server's
	P99      time.Duration // of sends; 0 where there were none
	Restarts float64
}

// rate is the share that failed.
func (s Seen) rate() float64 { return s.Failed / max(s.Commands, 1) }

// Watch follows one trial.
type Watch struct {
	cfg Config
	log *slog.Logger
}

// New returns a watch. It asks nothing yet.
func New(cfg Config, log *slog.Logger) (*Watch, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if u, err := url.Parse(cfg.Prometheus); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no address of a Prometheus; want a URL such as http://prometheus:9090", cfg.Prometheus)
	}
	return &Watch{cfg: cfg, log: log}, nil
}

// Run looks until the trial is over or decided, and says why. The error is
// that of a context that has ended.
func (w *Watch) Run(ctx context.Context) (Verdict, string, error) {
	end := time.NewTimer(w.cfg.For)
	defer end.Stop()
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	verdict, why, bad := Unknown, "no window had enough commands to decide over", 0
	for {
		select {
		case <-ctx.Done():
			return verdict, why, context.Cause(ctx)
		case <-end.C:
			return verdict, why, nil
		case <-tick.C:
		}
		canary, stable, err := w.look(ctx)
		if err != nil {
			w.log.Warn("the release on trial cannot be looked at", slog.Any("error", err))
			continue
		}
		now, reason := w.cfg.judge(canary, stable)
		w.log.Info("looked at the release on trial", slog.String("verdict", now.String()), slog.String("why", reason),
			slog.Float64("commands", canary.Commands), slog.Float64("error_rate", canary.rate()), slog.Duration("p99", canary.P99),
			slog.Float64("stable_error_rate", stable.rate()), slog.Duration("stable_p99", stable.P99))
		switch now {
		case Bad:
			if bad++; bad >= w.cfg.Breaches {
				return Bad, reason, nil
			}
		case Good:
			verdict, why, bad = Good, reason, 0
		}
	}
}

// judge compares one look with the bounds.
func (c Config) judge(canary, stable Seen) (Verdict, string) {
	if canary.Restarts > float64(c.Restarts) {
		return Bad, fmt.Sprintf("its processes started %.0f times in %v, more than %d", canary.Restarts, c.Window, c.Restarts)
	}
	if canary.Commands < c.Least {
		return Unknown, fmt.Sprintf("%.0f commands in %v are fewer than %.0f", canary.Commands, c.Window, c.Least)
	}
	compared := stable.Commands >= c.Least
	if rate := canary.rate(); rate > c.ErrorRate && (!compared || c.ErrorFactor == 0 || rate > c.ErrorFactor*stable.rate()) {
		return Bad, fmt.Sprintf("%.2f %% of its commands failed, more than %.2f %% (%.2f %% at the stable nodes)", 100*rate, 100*c.ErrorRate, 100*stable.rate())
	}
	if canary.P99 > c.P99 && (!compared || c.P99Factor == 0 || canary.P99 > time.Duration(c.P99Factor*float64(stable.P99))) {
		return Bad, fmt.Sprintf("a send took %v at p99, more than %v (%v at the stable nodes)", canary.P99, c.P99, stable.P99)
	}
	return Good, fmt.Sprintf("%.2f %% of %.0f commands failed, p99 %v", 100*canary.rate(), canary.Commands, canary.P99)
}

// failures are the codes of errors that are the server's fault.
const failures = `code=~"unavailable|overloaded|internal|policy_error|plugin_error"`

// look asks Prometheus about both releases.
func (w *Watch) look(ctx context.Context) (canary, stable Seen, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Every+10*time.Second)
	defer cancel()
	if canary, err = w.see(ctx, w.cfg.Canary); err != nil {
		return canary, stable, err
	}
	stable, err = w.see(ctx, w.cfg.Stable)
	return canary, stable, err
}

func (w *Watch) see(ctx context.Context, matcher string) (s Seen, err error) {
	over := fmt.Sprintf("%ds", int(math.Ceil(w.cfg.Window.Seconds())))
	var p99 float64
	for _, q := range []struct {
		to   *float64
		expr string
	}{
		{&s.Commands, fmt.Sprintf(`sum(increase(parley_commands_total{%s}[%s]))`, matcher, over)},
		{&s.Failed, fmt.Sprintf(`sum(increase(parley_errors_total{%s,%s}[%s]))`, matcher, failures, over)},
		{&p99, fmt.Sprintf(`histogram_quantile(0.99, sum by (le) (increase(parley_send_seconds_bucket{%s}[%s])))`, matcher, over)},
		{&s.Restarts, fmt.Sprintf(`sum(changes(process_start_time_seconds{%s}[%s]))`, matcher, over)},
	} {
		if *q.to, err = w.number(ctx, q.expr); err != nil {
			return s, err
		}
	}
	s.P99 = time.Duration(p99 * float64(time.Second))
	return s, nil
}

// maxAnswer bounds what Prometheus may answer, in bytes: a vector of one number
// has 150.
const maxAnswer = 64 << 10

// number evaluates an expression that gives one number; 0 where there is none.
// Source: https://prometheus.io/docs/prometheus/latest/querying/api/, instant queries.
func (w *Watch) number(ctx context.Context, expr string) (float64, error) {
	at := strings.TrimSuffix(w.cfg.Prometheus, "/") + "/api/v1/query?query=" + url.QueryEscape(expr)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return 0, fmt.Errorf("query %s: %w", expr, err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err // names the method and the URL
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("query %s: %w", expr, err)
	}
	v, err := decodeNumber(body)
	if err != nil {
		return 0, fmt.Errorf("query %s: status %d: %w", expr, resp.StatusCode, err)
	}
	return v, nil
}

// decodeNumber reads the answer to a query: a vector of at most one number.
func decodeNumber(body []byte) (float64, error) {
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     []struct {
				Value [2]any // the time, and the number as text
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("this is no answer of a Prometheus: %.100q", body)
	}
	switch d := answer.Data; {
	case answer.Status != "success":
		return 0, fmt.Errorf("prometheus answered %s: %.300s", answer.Status, answer.Error)
	case d.ResultType != "vector" || len(d.Result) > 1:
		return 0, fmt.Errorf("prometheus answered a %.20s of %d, want a vector of one", d.ResultType, len(d.Result))
	case len(d.Result) == 0:
		return 0, nil
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("prometheus answered the number %.40q", text)
	case math.IsNaN(v) || math.IsInf(v, 0): // of no values, which is none
		return 0, nil
	}
	return v, nil
}
