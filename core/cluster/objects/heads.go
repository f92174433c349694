package objects

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a head.
const (
	maxHeadBytes = 64 << 10
	maxHeadName  = 64
	maxNamed     = 256 // objects that one head names
	maxHeads     = 256 // of one installation
	headRoom     = 128 // bytes for the version and the seal
)

// Version tells states of one head apart; 0 is that of a head that is not there.
type Version uint64

// Head is a small value that all nodes see.
type Head struct {
	Name    string
	Version Version
	// Names are the objects that are kept because of it.
	Names []Digest
	// Value is JSON. It was written by some node: check it.
	Value json.RawMessage

	bad error // why it has no value, where there is something
}

// Decode reads the head's value into v.
func (h *Head) Decode(v any) error {
	if h.bad != nil {
		return h.bad
	}
	if err := json.Unmarshal(h.Value, v); err != nil {
		return fmt.Errorf("head %s: %w", h.Name, err)
	}
	return nil
}

// Head returns the head of that name; one that is not there has version 0.
func (s *Store) Head(ctx context.Context, name string) (Head, error) {
	heads, err := s.heads(ctx, name)
	if err != nil {
		return Head{Name: name}, err
	}
	h, err := s.judge(name, heads[0])
	if untrusted(err) {
		poke(s.nudge) // it may be put right
	}
	return h, err
}

// SetHead gives a head a new value, which names the given objects, if its
// version is still old; 0 is for a head that is not there. ErrConflict says that it is not, ErrMissing that one of the objects is
// not stored, ErrNoSecret that it is sealed, which this node cannot do. An error of Redis leaves open whether the head was set: look.
func (s *Store) SetHead(ctx context.Context, name string, old Version, value any, names ...Digest) (Head, error) {
	if name == "" || len(name) > maxHeadName {
		return Head{}, fmt.Errorf("set head %.80q: want a name of 1 to %d bytes", name, maxHeadName)
	}
	h := Head{Name: name, Names: names}
	fail := func(err error) (Head, error) { return h, fmt.Errorf("set head %s: %w", name, err) }
	var err error
	if h.Value, err = json.Marshal(value); err != nil {
		return fail(err)
	}
	digests, keys := make([]string, len(names)), []string{s.headsKey(), s.agesKey()}
	for i, d := range names {
		if !d.Valid() {
			return fail(fmt.Errorf("%.80q is no digest", string(d)))
		}
		digests[i] = string(d)
		keys = append(keys, s.objectKey(d))
	}
	list := strings.Join(digests, " ")
	if len(names) > maxNamed || len(h.Value)+len(list)+headRoom > maxHeadBytes {
		return fail(fmt.Errorf("it has %d bytes and names %d objects, at most %d and %d are allowed", len(h.Value), len(names), maxHeadBytes, maxNamed))
	}
	version, body, seal := "0", "", ""
	if s.sealed() {
		version = strconv.FormatUint(uint64(s.next(name)), 10)
		body = version + "\n" + list + "\n" + string(h.Value)
		seal = sealMark + hex.EncodeToString(s.seal(s.cfg.Secrets[0], name, body))
	}
	reply, err := s.client.Eval(ctx, setHeadScript, keys, name, strconv.FormatUint(uint64(old), 10), list, []byte(h.Value), maxHeadBytes, version, seal)
	if err != nil {
		return fail(err)
	}
	parts, ok := reply.([]any)
	if !ok || len(parts) != 2 {
		return fail(fmt.Errorf("redis answered %T", reply))
	}
	text, _ := parts[1].(string)
	switch parts[0] {
	case int64(0):
		s.conflicts.Add(1)
		return fail(fmt.Errorf("%w: it has version %s, not %d", ErrConflict, text, old))
	case int64(1):
		return fail(fmt.Errorf("%w: %s", ErrMissing, short(Digest(strings.TrimPrefix(text, s.prefix+"o:")))))
	case int64(3):
		return fail(ErrNoSecret)
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fail(fmt.Errorf("redis answered version %.40q", text))
	}
	h.Version = Version(v)
	if s.sealed() {
		_, _ = s.judge(name, body+"\n"+seal) // that others cannot take it back
	}
	_ = s.client.Publish(ctx, s.channel, name) // a lost hint costs the others one poll
	poke(s.nudge)
	return h, nil
}

// heads reads the stored form of each head, "" for one that is not there.
func (s *Store) heads(ctx context.Context, names ...string) ([]string, error) {
	args := make([]any, 0, 1+len(names))
	args = append(args, maxHeadBytes)
	for _, n := range names {
		args = append(args, n)
	}
	reply, err := s.client.Eval(ctx, headsScript, []string{s.headsKey()}, args...)
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	list, ok := reply.([]any)
	if !ok || len(list) != len(names) {
		return nil, fmt.Errorf("read heads: redis answered %T", reply)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("read heads: redis answered %T", v)
		}
	}
	return out, nil
}

// ErrBadHead says that a head cannot be read. SetHead with the version that
// comes along, 0 where there is none to be seen, replaces it.
var ErrBadHead = errors.New("the head cannot be read")

// decodeHead reads a head's stored form, whatever its seal.
func decodeHead(name, text string) (Head, error) {
	whole := len(text)
	text, _ = cutSeal(text)
	h := Head{Name: name}
	if whole == 0 {
		return h, nil
	}
	bad := func(why string) (Head, error) {
		return Head{Name: name, Version: h.Version}, fmt.Errorf("%w: %s: %s", ErrBadHead, name, why)
	}
	version, rest, ok := strings.Cut(text, "\n")
	list, value, ok2 := strings.Cut(rest, "\n")
	v, err := strconv.ParseUint(version, 10, 53) // what Redis counts exactly
	if !ok || whole > maxHeadBytes {
		return bad("it does not have the form of one")
	}
	if err != nil || v == 0 || strconv.FormatUint(v, 10) != version {
		return bad(fmt.Sprintf("%.40q is no version", version))
	}
	h.Version = Version(v)
	switch {
	case !ok2:
		return bad("it has no value")
	case !json.Valid([]byte(value)):
		return bad("its value is no JSON")
	}
	for _, d := range strings.Fields(list) {
		if len(h.Names) == maxNamed || !Digest(d).Valid() {
			return bad("what it names is no list of objects")
		}
		h.Names = append(h.Names, Digest(d))
	}
	h.Value = json.RawMessage(value)
	return h, nil
}

// same reports whether two states of a head are one.
func same(a, b Head) bool { return a.Version == b.Version && bytes.Equal(a.Value, b.Value) }
