package moderation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Config bounds a Stage.
type Config struct {
	// InputBytes bounds the encoded input of a decision: the text, its
	// normalised form and the facts about it.
	InputBytes int
	// Keep says of a merged verdict whether Result.Input is wanted; nil keeps
	// none.
	Keep func(abi.Verdict) bool
}

// Defaults returns the configuration that fits every plugin with default
// limits.
func Defaults() Config { return Config{InputBytes: abi.MaxInput} }

// Bounds of Config.InputBytes: room for names, roles and a few words; a
// plugin's whole default memory.
const (
	minInputBytes = 1 << 10
	maxInputBytes = 1 << 20
)

// Stage runs the plugins of a room over a message. Any goroutine may use it.
type Stage struct {
	cfg     Config
	source  Source
	scratch sync.Pool // of *scratch
}

// scratch is what one call works on; it is kept for the next.
type scratch struct {
	form  Form
	text  []byte
	roles []string
	input []byte
	marks []interval
	asked []int // index of the judge of each record, -1 for none
}

// maxKept bounds the scratch that is kept, so that one long text does not hold
// on to its memory.
const maxKept = 64 << 10

// New returns a stage that asks source for the plugins of each message.
func New(cfg Config, source Source) (*Stage, error) {
	if cfg.InputBytes < minInputBytes || cfg.InputBytes > maxInputBytes {
		return nil, fmt.Errorf("moderation: input bytes %d are not within %d and %d", cfg.InputBytes, minInputBytes, maxInputBytes)
	}
	s := &Stage{cfg: cfg, source: source}
	s.scratch.New = func() any { return new(scratch) }
	return s, nil
}

// Judge lets the plugins decide on m, one after another on the caller's
// goroutine; those whose verdict does not count (see Staged) come last. only
// restricts them by name: nil means every plugin that wants the room and kind,
// an empty list none. A name in only that no plugin answers to with a verdict
// that counts is a failed plugin that fails closed: whoever asked for its
// judgement does not want the message passed without.
//
// The error is a *chat.Error when m.Text is not valid UTF-8 (bad_request) or
// too long for plugins (text_too_long), before any plugin ran; it is ctx's
// when that ends between two plugins. A message no plugin wants costs nothing.
func (s *Stage) Judge(ctx context.Context, m *Message, only []string) (Result, error) {
	return s.decide(ctx, s.source.Judges(), m, only, true)
}

// decide is Judge by those judges; shadowed says whether those that do not count
// are asked too.
func (s *Stage) decide(ctx context.Context, judges []Judge, m *Message, only []string, shadowed bool) (Result, error) {
	if !slices.IsSortedFunc(judges, byName) {
		judges = slices.SortedStableFunc(slices.Values(judges), byName)
	}
	var few [32]Part // most rooms have fewer, and then it stays on the stack
	parts, counting, shadows := few[:0], 0, 0
	for _, j := range judges {
		part := partOf(j, m, only)
		switch part {
		case Enforce, Canary:
			counting++
		case Shadow:
			shadows++
		}
		parts = append(parts, part)
	}
	missing := absent(judges, parts, only)
	if counting+shadows+len(missing) == 0 {
		return Result{Text: m.Text, Idle: len(judges)}, ctx.Err()
	}
	sc := s.scratch.Get().(*scratch)
	defer s.put(sc)
	if err := sc.encode(m, s.cfg.InputBytes); err != nil {
		if counting+len(missing) == 0 { // only shadows would have seen it, and they change nothing
			return Result{Text: m.Text}, ctx.Err()
		}
		return Result{Text: m.Text}, err
	}
	sc.asked = sc.asked[:0]
	mg := merger{form: &sc.form, marks: sc.marks[:0]}
	mg.res.Records = make([]Record, 0, counting+shadows+len(missing))
	if err := sc.judge(ctx, &mg, judges, parts); err != nil {
		return Result{Text: m.Text}, err
	}
	for _, name := range append(missing, lapsed(mg.res.Records, only)...) {
		sc.asked = append(sc.asked, -1)
		mg.add(Record{Plugin: name, Part: Enforce, Verdict: abi.Error, Err: errMissing, OnError: abi.Deny}, abi.Deny, &abi.Result{})
	}
	if shadows > 0 && shadowed {
		sc.shadow(ctx, &mg, judges, parts)
	}
	mg.observe(judges, sc.asked)
	sc.marks = mg.marks
	res := mg.result(m.Text)
	if s.cfg.Keep != nil && s.cfg.Keep(res.Verdict) {
		res.Input = slices.Clone(sc.input)
	}
	return res, nil
}

// judge asks the judges that count.
func (sc *scratch) judge(ctx context.Context, mg *merger, judges []Judge, parts []Part) error {
	start := time.Now()
	failed := "" // the name whose version on trial failed
	for i, j := range judges {
		part := parts[i]
		if part == Shadow && failed != "" && failed == j.Name() {
			part = Enforce
		}
		if part != Enforce && part != Canary {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, r := sc.ask(j, part, &start)
		sc.asked = append(sc.asked, i)
		if part == Canary && rec.Err != nil {
			failed = j.Name()
			mg.note(rec)
			continue
		}
		mg.add(rec, j.OnError(), &r)
	}
	return nil
}

// shadow asks the judges that do not count and were not asked in place of
// another. What it leaves out for want of time nobody misses.
func (sc *scratch) shadow(ctx context.Context, mg *merger, judges []Judge, parts []Part) {
	start := time.Now()
	for i, j := range judges {
		if parts[i] != Shadow || slices.Contains(sc.asked, i) {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		rec, _ := sc.ask(j, Shadow, &start)
		sc.asked = append(sc.asked, i)
		mg.note(rec)
	}
}

// ask has one judge decide. start is when the one before was done.
func (sc *scratch) ask(j Judge, part Part, start *time.Time) (Record, abi.Result) {
	text, _ := abi.FieldBytes(sc.input, abi.FieldText) // encoded just now
	normalized, _ := abi.FieldBytes(sc.input, abi.FieldNormalized)
	v, r, fuel, err := decide(j, sc.input, text, normalized)
	end := time.Now()
	rec := Record{
		Plugin: j.Name(), Digest: j.Digest(), Part: part, Verdict: v, Code: r.Code, Score: r.Score,
		Fuel: fuel, Time: end.Sub(*start), Err: err, Version: j.Version(), Config: j.ConfigDigest(), OnError: j.OnError(),
	}
	if v == abi.Redact {
		rec.spans = r.Spans
	}
	*start = end
	return rec, r
}

var errMissing = errors.New("moderation: the policy asks for a plugin that does not judge this message")

func byName(a, b Judge) int { return cmp.Compare(a.Name(), b.Name()) }

// absent returns the names in only that nobody judges this message for,
// sorted, each once: no judge has the name, or those that have it are only
// shadows this time, or are not asked at all, as a version on trial is not
// about people outside its canary, nor a plugin about a room it does not want.
func absent(judges []Judge, parts []Part, only []string) []string {
	var names []string
	for _, name := range only {
		there := false
		for i, j := range judges {
			there = there || (parts[i] == Enforce || parts[i] == Canary) && j.Name() == name
		}
		if !there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// lapsed returns the names in only whose version on trial failed with nobody
// to stand in for it, sorted, each once.
func lapsed(recs []Record, only []string) []string {
	var names []string
	for i := range recs {
		r := &recs[i]
		if r.Part == Canary && r.Err != nil && slices.Contains(only, r.Plugin) &&
			!slices.ContainsFunc(recs, func(o Record) bool { return o.Plugin == r.Plugin && o.Part == Enforce }) {
			names = append(names, r.Plugin)
		}
	}
	return names
}

// decide asks one judge and turns whatever breaks the contract into an error.
func decide(j Judge, input, text, normalized []byte) (v abi.Verdict, r abi.Result, fuel uint64, err error) {
	defer func() {
		if p := recover(); p != nil { // the plugin boundary: one broken host call must not end the node
			v, r, err = abi.Error, abi.Result{}, fmt.Errorf("moderation: judge panicked: %v", p)
		}
	}()
	v, r, fuel, err = j.Decide(input, text, normalized)
	if err == nil {
		err = check(v, &r, text, normalized)
	}
	if err != nil {
		return abi.Error, abi.Result{}, fuel, err
	}
	return v, r, fuel, nil
}

// check refuses results that masking could not follow. The wazero host has
// checked more (abi.DecodeResult); a judge in process may not have.
func check(v abi.Verdict, r *abi.Result, text, normalized []byte) error {
	switch v {
	case abi.Allow, abi.Flag, abi.Hold, abi.Deny:
		return nil
	case abi.Redact:
	case abi.Error:
		return errors.New("moderation: the plugin could not judge")
	default:
		return fmt.Errorf("moderation: unknown verdict %d", uint8(v))
	}
	if len(r.Spans) == 0 || len(r.Spans) > abi.MaxSpans {
		return fmt.Errorf("moderation: redact with %d spans, 1 to %d are allowed", len(r.Spans), abi.MaxSpans)
	}
	for _, sp := range r.Spans {
		field := text
		if sp.Field == abi.FieldNormalized {
			field = normalized
		}
		end := uint64(sp.Start) + uint64(sp.Length)
		if sp.Field > abi.FieldNormalized || sp.Length == 0 || end > uint64(len(field)) {
			return fmt.Errorf("moderation: span [%d,%d) lies outside field %d", sp.Start, end, sp.Field)
		}
	}
	return nil
}

// encode normalises m.Text and writes the input for the plugins.
func (sc *scratch) encode(m *Message, limit int) error {
	if !utf8.ValidString(m.Text) {
		return chat.Errorf(chat.CodeBadRequest, "the text is not valid UTF-8; send it encoded as UTF-8")
	}
	roles := sc.joinRoles(m.Roles)
	rest := limit - abi.InputHeaderSize - abi.NumFields*abi.FieldEntrySize - abi.SignalsSize -
		len(m.Text) - len(m.User) - len(m.Room) - len(roles) - len(m.Kind)
	if rest <= 0 {
		return chat.Errorf(chat.CodeTextTooLong, "the text has %d bytes, too many for the plugins that judge it; shorten it", len(m.Text))
	}
	if err := sc.form.set(m.Text, rest); err != nil {
		return err
	}
	sc.text = append(sc.text[:0], m.Text...)
	sc.input = abi.AppendInput(sc.input[:0], &abi.Input{
		TimeMS: m.TimeMS, Text: sc.text, Normalized: sc.form.norm,
		User: string(m.User), Room: string(m.Room), Roles: roles, Kind: m.Kind, Signals: m.Signals,
	})
	return nil
}

// joinRoles returns the roles sorted, each once, '\n' between them.
func (sc *scratch) joinRoles(roles []string) string {
	if len(roles) == 1 {
		return roles[0]
	}
	sc.roles = append(sc.roles[:0], roles...)
	slices.Sort(sc.roles)
	sc.roles = slices.Compact(sc.roles)
	return strings.Join(sc.roles, "\n")
}

// put keeps sc for the next message, without anything of this one's beyond
// bytes that are overwritten before they are read.
func (s *Stage) put(sc *scratch) {
	if cap(sc.input) > maxKept || cap(sc.form.runs) > maxKept/16 {
		return
	}
	sc.form.original = ""
	clear(sc.roles)
	s.scratch.Put(sc)
}
