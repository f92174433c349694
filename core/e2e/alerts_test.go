package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/client"
	"parley/core/redis/redistest"
	"parley/core/transport/transporttest"
	"parley/sdk/abi"
)

const rulesFile = "../../deploy/prometheus/parley.rules.yml"

// everything is one of each process that has metrics, set up so that it has all
// of them: a node with TLS, Redis, a policy from Git and a plugin, and a worker.
type everything struct {
	t       *testing.T
	node    *node
	store   *redistest.Server
	worker  *worker
	metrics string // address of the worker's
	ann     *visitor
	talks   int
}

func startEverything(t *testing.T) *everything {
	t.Helper()
	x := &everything{t: t, store: redistest.Start(t, redistest.Options{}), metrics: freePorts(t, 1)[0]}
	authority := transporttest.NewAuthority(t)
	cert, key, _ := authority.Files(t.TempDir(), time.Now().Add(time.Hour))
	repo, plugins := newRepo(t), t.TempDir()
	repo.commit(map[string]string{"parley.rego": strings.ReplaceAll(quietRules, `"lobby"`, `"quiet"`)})
	x.node = startNode(t, unlimited(settings{"redis.url": x.store.URL(), "tls.cert_file": cert, "tls.key_file": key,
		"policy.git.url": repo.dir, "policy.git.interval": "1s", "plugins.dir": plugins}))
	drop(x.node, plugins, constantModule(abi.Flag, "v1"), map[string]any{"version": "1"})
	await(t, "the plugin is in force", func() bool { return pluginOf(x.node, "p").State == "active" })
	drop(x.node, plugins, constantModule(abi.Allow, ""), map[string]any{"version": "2",
		"rollout": map[string]any{"stage": "canary", "percent": 100, "guards": map[string]any{"disagreement": 0}}})
	await(t, "v2 is on trial", func() bool { return pluginOf(x.node, "p").Candidate != nil })
	x.worker = startWorker(t, x.store, newReceiver(t), "--metrics", x.metrics)
	x.ann = visit(t, client.Options{URL: "wss://" + x.node.HTTP + "/v1/ws", Guest: "ann", TLS: authority.Client()})
	x.ann.enters("lobby")
	return x
}

// talk is something of what gives numbers: messages, a refusal, an erasure.
func (x *everything) talk() {
	x.t.Helper()
	x.ann.says("lobby", "a fine day")
	ack, _ := x.ann.says("lobby", "a fine word")
	if _, err := x.ann.Send(within(x.t), "quiet", client.NewNonce(), "refused"); err == nil {
		x.t.Fatal("the policy refuses nothing in a room that is quiet")
	}
	if x.talks++; x.talks%50 == 1 { // the store writes the log anew each time
		if _, err := x.ann.Erase(within(x.t), "lobby", client.NewNonce(), ack.Seq, ""); err != nil {
			x.t.Fatal(err)
		}
	}
}

// names are the series that the processes show.
func (x *everything) names() map[string]bool {
	names := map[string]bool{"up": true} // Prometheus's own
	_, page := x.node.Get("/metrics")
	for _, text := range []string{page, fetch(x.t, "http://"+x.metrics+"/metrics")} {
		for line := range strings.Lines(text) {
			if name := regexp.MustCompile(`^[a-z_][a-z0-9_]*`).FindString(line); name != "" {
				names[name] = true
			}
		}
	}
	return names
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// series finds the names of metrics in an expression. Those of the processes
// begin with one of these words; functions and labels do not.
var series = regexp.MustCompile(`\b(?:parley|process|go)_[a-z0-9_]+|\bup\b`)

// rule is an alert as Prometheus has read it.
type rule struct{ Name, Query, Health, LastError string }

func (p *prometheus) rules() (rules []rule) {
	p.t.Helper()
	_, body := p.get("/api/v1/rules")
	var answer struct {
		Data struct{ Groups []struct{ Rules []rule } }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		p.t.Fatalf("rules: %v: %s", err, body)
	}
	for _, g := range answer.Data.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

// TestEveryMetricNamedIsThere: what dashboards and alerts ask for, the processes
// have, by that name; what an alert asks is understood, is silent when all is well,
// and speaks when it is not.
func TestEveryMetricNamedIsThere(t *testing.T) {
	t.Parallel()
	x := startEverything(t)
	file, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	prom := scrapeAll(t, file, x.node.Admin, x.metrics)
	var rules []rule
	await(t, "Prometheus has looked at every rule", func() bool {
		rules = prom.rules()
		return len(rules) > 0 && !slices.ContainsFunc(rules, func(r rule) bool { return r.Health == "unknown" })
	})
	asked := map[string]string{} // expression by what asks
	for _, r := range rules {
		asked["alert "+r.Name] = r.Query
		if r.Health != "ok" {
			t.Errorf("alert %s is %s: %s", r.Name, r.Health, r.LastError)
		}
	}
	for _, name := range []string{"parley-server.json", "parley-policy.json", "parley-plugins.json"} {
		for what, expr := range queriesOf(t, name) {
			asked[name+": "+what] = expr
		}
	}
	var lost []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("named, and not there: %q", lost)
		}
	})
	await(t, "every metric is there", func() bool {
		x.talk()
		lost = missing(asked, x.names())
		return len(lost) == 0
	})
	if lost := missing(map[string]string{"a test": "rate(parley_no_such_series[5m])"}, x.names()); len(lost) != 1 {
		t.Errorf("a metric that does not exist is not missed: %v", lost)
	}
	if n := len(series.FindAllString(strings.Join(slices.Collect(maps.Values(asked)), " "), -1)); n < 100 {
		t.Errorf("found %d names in what is asked; the pattern is wrong", n)
	}

	for what, expr := range queriesOf(t, "parley-server.json") {
		await(t, what+": "+expr, func() bool {
			x.talk()
			return prom.query(expr) > 0
		})
	}

	at := map[string]string{}
	for _, r := range rules {
		at[r.Name] = regexp.MustCompile(`\[\w+\]`).ReplaceAllString(r.Query, "[5s]")
	}
	loud := map[string]bool{"ParleyCertificateEnds": true}                          // it ends in an hour
	slow := map[string]bool{"ParleySendsAreSlow": true, "ParleyCommandsFail": true} // by the machine; every refusal of talk is meant
	for name, expr := range at {
		if !slow[name] {
			await(t, fmt.Sprintf("%s fires: %v", name, loud[name]), func() bool { return (prom.query(expr) > 0) == loud[name] })
		}
	}
	x.worker.kill()
	await(t, "ParleyDown fires", func() bool { return prom.query(at["ParleyDown"]) > 0 })
	x.store.Pause()
	for _, name := range []string{"ParleyRedisAway", "ParleyCommandsFail"} {
		await(t, name+" fires", func() bool {
			_, _ = x.ann.Send(within(t), "lobby", client.NewNonce(), "is anybody there?")
			return prom.query(at[name]) > 0
		})
	}
	x.store.Resume()
	await(t, "ParleyRedisAway is silent again", func() bool { return prom.query(at["ParleyRedisAway"]) == 0 })
	x.node.Stop()
}

// missing lists what is asked for and not there.
func missing(asked map[string]string, there map[string]bool) (lost []string) {
	for what, expr := range asked {
		for _, name := range series.FindAllString(expr, -1) {
			if !there[name] {
				lost = append(lost, what+" asks for "+name)
			}
		}
	}
	slices.Sort(lost)
	return lost
}
