package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/redis/redistest"
	"parley/sdk/abi"
)

// prometheus is a Prometheus server that scrapes nodes.
type prometheus struct {
	t    *testing.T
	addr string
}

// scrape starts Prometheus; it ends with the test.
func scrape(t *testing.T, nodes ...*node) *prometheus {
	t.Helper()
	var targets []string
	for _, n := range nodes {
		targets = append(targets, n.Admin)
	}
	return scrapeAll(t, "", targets...)
}

// scrapeAll does the same with the addresses of any processes, and with a file
// of rules, "" for none.
func scrapeAll(t *testing.T, rules string, addrs ...string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	p := &prometheus{t: t, addr: freePorts(t, 1)[0]}
	var targets []string
	for _, addr := range addrs {
		targets = append(targets, strconv.Quote(addr))
	}
	config := fmt.Sprintf("global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  evaluation_interval: 500ms\nscrape_configs:\n- job_name: parley\n  static_configs:\n  - targets: [%s]\n", strings.Join(targets, ", "))
	if rules != "" {
		config += fmt.Sprintf("rule_files: [%q]\n", rules)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out := new(rig.Tail)
	cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.addr, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = lines{out}, lines{out}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Prometheus (make setup installs it): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("Prometheus ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the log of Prometheus:\n%s", out)
		}
	})
	await(t, "Prometheus is ready", func() bool {
		code, _ := p.get("/-/ready")
		return code == http.StatusOK
	})
	return p
}

// lines adds what is written to a tail.
type lines struct{ *rig.Tail }

func (l lines) Write(b []byte) (int, error) {
	l.Add(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

func (p *prometheus) get(path string) (int, []byte) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, b
}

// query evaluates an expression and returns how many samples it gives that are
// numbers. An expression that Prometheus refuses fails the test.
func (p *prometheus) query(expr string) (samples int) {
	p.t.Helper()
	code, body := p.get("/api/v1/query?query=" + url.QueryEscape(expr))
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	if code == 0 {
		return 0
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		p.t.Fatalf("query %s: got status %d, %s %v: %s", expr, code, answer.Error, err, body)
	}
	for _, r := range answer.Data.Result {
		if r.Value[1] != "NaN" {
			samples++
		}
	}
	return samples
}

// dashboard is what a test reads of a Grafana dashboard.
type dashboard struct {
	Templating struct {
		List []struct{ Name, Type, Query string }
	}
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

// queriesOf returns every query of a dashboard in deploy/grafana, by what asks
// for it.
func queriesOf(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../deploy/grafana/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(v.Query)
		if m == nil {
			t.Fatalf("variable %s: %q is not understood", v.Name, v.Query)
		}
		queries["variable "+v.Name] = fmt.Sprintf("group by (%s) (%s)", m[2], m[1])
	}
	for _, p := range d.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for i, target := range p.Targets {
			queries[fmt.Sprintf("panel %q, query %d", p.Title, i+1)] = strings.NewReplacer("$plugin", ".*", "$__rate_interval", "10s").Replace(target.Expr)
		}
	}
	return queries
}

// TestTheDashboardShowsSomething runs every query of the dashboard in deploy
// against a real Prometheus that scrapes a real server with traffic.
func TestTheDashboardShowsSomething(t *testing.T) {
	t.Parallel()
	queries := queriesOf(t, "parley-plugins.json")
	dir := t.TempDir()
	n := startNode(t, unlimited(settings{"plugins.dir": dir}))
	drop(n, dir, constantModule(abi.Flag, "v1"), map[string]any{"version": "1"})
	module, err := os.ReadFile(built.wordlist)
	if err != nil {
		t.Fatal(err)
	}
	install(t, filepath.Join(dir, "wordlist.json"), []byte(`{"config":{"words":["darn"]}}`))
	install(t, filepath.Join(dir, "wordlist.wasm"), module)
	await(t, "the plugins are in force", func() bool {
		return pluginOf(n, "p").State == "active" && pluginOf(n, "wordlist").State == "active"
	})
	drop(n, dir, constantModule(abi.Allow, ""), map[string]any{"version": "2",
		"rollout": map[string]any{"stage": "canary", "percent": 100, "guards": map[string]any{"disagreement": 0}}})
	await(t, "v2 is on trial", func() bool { return pluginOf(n, "p").Candidate != nil && pluginOf(n, "p").Candidate.Version == "2" })

	prom := scrape(t, n)
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.enters("lobby")
	for name, expr := range queries {
		await(t, name+": "+expr, func() bool {
			ann.says("lobby", "a fine day")
			ann.says("lobby", "well darn it")
			return prom.query(expr) > 0
		})
	}
	n.Stop()
}

// TestThePolicyDashboardShowsSomething does the same with the policy's, over
// two commits.
func TestThePolicyDashboardShowsSomething(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	r.commit(map[string]string{"parley.rego": openRules})
	store := redistest.Start(t, redistest.Options{})
	n := startNode(t, unlimited(settings{"policy.git.url": r.dir, "policy.git.interval": "1s", "redis.url": store.URL()}))
	prom := scrape(t, n)
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.enters("lobby")
	ann.says("lobby", "a fine day")
	now := r.commit(map[string]string{"parley.rego": quietRules})
	await(t, "the second commit is live", func() bool {
		return strings.Contains(status[policyStatus](n, "/v1/policy/status").Revision, now)
	})
	for name, expr := range queriesOf(t, "parley-policy.json") {
		await(t, name+": "+expr, func() bool {
			ann.says("kitchen", "louder here")
			_, _ = ann.Send(within(t), "lobby", client.NewNonce(), "refused")
			return prom.query(expr) > 0
		})
	}
	n.Stop()
}
