package policy

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"parley/core/chat"
	"parley/core/gate"
)

// place is where a rule stands.
type place struct {
	file string
	line int
}

// Rule is a rule that held while a question was answered.
type Rule struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Name string `json:"name"` // "parley.refusal"
	// Words is the comment right above the rule, which is where its author
	// says what it is for; without one, how the rule begins.
	Words string `json:"words"`

	node *ast.Rule
}

// Explanation is how an answer came about.
type Explanation struct {
	Decision gate.Decision
	// Rules are those that held, in the order in which they first did.
	Rules []Rule
	// Trace is what the evaluator did, step by step, for who writes rules. It
	// ends early where it would be longer than a screen's worth of thousands
	// of lines.
	Trace string
}

// Bounds of an explanation.
const (
	maxTraceEvents = 20_000
	maxTraceBytes  = 1 << 20
	maxFired       = 256
	maxWordsBytes  = 300
)

// Explain answers as Evaluate does and says how. It is for people who ask, not
// for the path of messages: it takes ten times as long.
func (e *Engine) Explain(ctx context.Context, in *gate.Input) (Explanation, error) {
	in = e.completed(in)
	rules, steps := &ruleTracer{engine: e}, &stepTracer{}
	d, err := e.evaluate(ctx, e.reads.document(in), rules, steps)
	var trace bytes.Buffer
	topdown.PrettyTraceWithLocation(&trace, steps.events)
	text := trace.String()
	if steps.cut || len(text) > maxTraceBytes {
		text = text[:min(len(text), maxTraceBytes)]
		text = text[:strings.LastIndexByte(text, '\n')+1] + "... the trace goes on\n"
	}
	return Explanation{Decision: d, Rules: rules.held, Trace: text}, err
}

// Blame answers as Evaluate does and names the rule that made the answer: the
// one that speaks of the first reason's code or sentence, else the one that is
// the decision. ok is false where none held.
func (e *Engine) Blame(ctx context.Context, in *gate.Input) (d gate.Decision, rule Rule, ok bool) {
	in = e.completed(in)
	held := &ruleTracer{engine: e}
	d, _ = e.evaluate(ctx, e.reads.document(in), held)
	if len(d.Reasons) > 0 && !d.Failed {
		for _, want := range []string{d.Reasons[0].Code, d.Reasons[0].Text} {
			for _, r := range held.held {
				if mentions(r.node, want) {
					return d, r, true
				}
			}
		}
	}
	for _, r := range slices.Backward(held.held) {
		if "data."+r.Name == EntryPoint {
			return d, r, true
		}
	}
	return d, Rule{}, false
}

// Refusers answers as Evaluate does and names the rule behind each reason of
// the answer: rules[i] is that of reason i, and zero where none speaks of it.
func (e *Engine) Refusers(ctx context.Context, in *gate.Input) (d gate.Decision, rules []gate.Rule) {
	in = e.completed(in)
	held := &ruleTracer{engine: e}
	d, _ = e.evaluate(ctx, e.reads.document(in), held)
	rules = make([]gate.Rule, len(d.Reasons))
	if d.Failed {
		return d, rules
	}
	for i, reason := range d.Reasons {
		if r := speaker(held.held, reason); r != nil {
			rules[i] = gate.Rule{File: r.File, Line: r.Line, Name: r.Name, Words: r.Words}
		}
	}
	return d, rules
}

// speaker is the rule that has the reason's sentence or, failing that, its code.
// Several rules may refuse with one code.
func speaker(held []Rule, reason chat.Reason) *Rule {
	for _, want := range []string{reason.Text, reason.Code} {
		for i := range held {
			if want != "" && mentions(held[i].node, want) {
				return &held[i]
			}
		}
	}
	return nil
}

// mentions reports whether a rule holds the constant text.
func mentions(rule *ast.Rule, text string) (found bool) {
	ast.WalkTerms(rule, func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Ref:
			return true // input.subject.muted does not speak of the code muted
		case ast.String:
			found = found || string(v) == text
		}
		return found
	})
	return found
}

// ruleTracer notes the rules that held.
type ruleTracer struct {
	engine *Engine
	held   []Rule
	seen   map[place]bool
}

// Enabled implements topdown.QueryTracer.
func (*ruleTracer) Enabled() bool { return true }

// Config implements topdown.QueryTracer.
func (*ruleTracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements topdown.QueryTracer.
func (t *ruleTracer) TraceEvent(event topdown.Event) {
	if event.Op != topdown.ExitOp || len(t.held) == maxFired {
		return
	}
	rule, ok := event.Node.(*ast.Rule)
	if !ok || rule.Location == nil {
		return
	}
	at := place{rule.Location.File, rule.Location.Row}
	if t.seen[at] {
		return
	}
	if t.seen == nil {
		t.seen = map[place]bool{}
	}
	t.seen[at] = true
	t.held = append(t.held, Rule{File: at.file, Line: at.line, Name: nameOf(rule), Words: t.engine.wordsAt(at, rule), node: rule})
}

func nameOf(rule *ast.Rule) string {
	name := rule.Head.Ref().ConstantPrefix().String()
	if rule.Module != nil {
		name = strings.TrimPrefix(rule.Module.Package.Path.String(), "data.") + "." + name
	}
	return name
}

func (e *Engine) wordsAt(at place, rule *ast.Rule) string {
	if words := e.words[at]; words != "" {
		return words
	}
	if rule.Default {
		return clip("unless a rule says otherwise: "+rule.Head.String(), maxWordsBytes)
	}
	line, _, _ := strings.Cut(string(rule.Location.Text), "\n")
	return clip(strings.TrimSuffix(strings.TrimSpace(line), "{"), maxWordsBytes)
}

// wordsOf returns the comment that ends right above each rule of modules.
func wordsOf(modules map[string]*ast.Module) map[place]string {
	out := map[place]string{}
	for file, m := range modules {
		lines := map[int]string{}
		for _, c := range m.Comments {
			lines[c.Location.Row] = strings.TrimSpace(string(c.Text))
		}
		for _, rule := range m.Rules {
			for r := rule; r != nil; r = r.Else {
				var words []string
				for line := r.Location.Row - 1; lines[line] != ""; line-- {
					words = append(words, lines[line])
				}
				slices.Reverse(words)
				if len(words) > 0 {
					out[place{file, r.Location.Row}] = clip(strings.Join(words, " "), maxWordsBytes)
				}
			}
		}
	}
	return out
}

// stepTracer keeps the first steps of an evaluation.
type stepTracer struct {
	events []*topdown.Event
	cut    bool
}

// Enabled implements topdown.QueryTracer.
func (t *stepTracer) Enabled() bool { return !t.cut }

// Config implements topdown.QueryTracer.
func (*stepTracer) Config() topdown.TraceConfig { return topdown.TraceConfig{PlugLocalVars: true} }

// TraceEvent implements topdown.QueryTracer.
func (t *stepTracer) TraceEvent(event topdown.Event) {
	if len(t.events) == maxTraceEvents {
		t.cut = true
		return
	}
	t.events = append(t.events, &event)
}
