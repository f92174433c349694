package decisionlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"parley/core/chat"
	"parley/core/gate"
)

// Record is one decision, or one event in the life of the policy. Records are
// immutable once added.
type Record struct {
	Time time.Time `json:"time"`
	// ID is the decision's name: it sorts by time, and the person refused is
	// told it.
	ID       string `json:"id"`
	Revision string `json:"revision"`

	// Of a decision.
	Input       *gate.Input       `json:"input,omitempty"`
	Message     chat.MessageID    `json:"message,omitempty"` // that it was about, where it has an id
	Allow       bool              `json:"allow"`
	Reasons     []chat.Reason     `json:"reasons,omitempty"`
	Obligations *gate.Obligations `json:"obligations,omitempty"` // nil: none
	Failed      bool              `json:"failed,omitempty"`      // policy_error
	Cached      bool              `json:"cached,omitempty"`
	NS          int64             `json:"ns"` // what evaluating took, for a cached answer when it was evaluated
	// Masked names the fields of Input that were left out.
	Masked []string `json:"masked,omitempty"`
	// Named identifies what the data called networks and new accounts then. Where
	// it is another's, so are context.networks and subject.new_account.
	Named string `json:"named,omitempty"`
	// NotReplayable says that a masked field was one the policy reads.
	NotReplayable bool `json:"not_replayable,omitempty"`

	// Of an event.
	Event  Event  `json:"event,omitempty"`
	By     string `json:"by,omitempty"` // the person, where there is one
	Detail string `json:"detail,omitempty"`
}

// Event says what happened to the policy; "" is a decision.
type Event string

// The events.
const (
	EventLive     Event = "live"      // the revision decides from now on
	EventRefused  Event = "refused"   // the revision was not taken, for the reason in Detail
	EventAccepted Event = "accepted"  // By lets the revision past policy.guard
	EventPinned   Event = "pinned"    // By has the revision decide, wherever the ref points
	EventUnpinned Event = "unpinned"  // the ref is followed again
	EventCacheOff Event = "cache_off" // the cache answered otherwise than the policy
)

// MaxRecordBytes bounds one record in a file. An input within the bounds of
// core/chat, with eight reasons of half a kilobyte, takes a tenth of it.
const MaxRecordBytes = 64 << 10

// IsDecision reports whether r is a decision and no event.
func (r *Record) IsDecision() bool { return r.Event == "" }

// Decision is r in the form the policy gave it.
func (r *Record) Decision() gate.Decision {
	d := gate.Decision{Allow: r.Allow, Reasons: r.Reasons, Revision: r.Revision, Failed: r.Failed, Cached: r.Cached, ID: r.ID}
	if r.Obligations != nil {
		d.Obligations = *r.Obligations
	}
	return d
}

// appendLine appends r as one line of JSON.
func (r *Record) appendLine(b []byte) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return b, fmt.Errorf("encode decision %s: %w", r.ID, err)
	}
	if len(text) >= MaxRecordBytes {
		return b, fmt.Errorf("encode decision %s: %d bytes, at most %d are kept", r.ID, len(text), MaxRecordBytes)
	}
	return append(append(b, text...), '\n'), nil
}

// Decode reads one line of a log.
func Decode(line []byte) (*Record, error) {
	line = bytes.TrimSpace(line)
	switch {
	case len(line) > MaxRecordBytes:
		return nil, fmt.Errorf("decode a decision: %d bytes, at most %d are read", len(line), MaxRecordBytes)
	case !utf8.Valid(line):
		return nil, errors.New("decode a decision: it is not UTF-8")
	}
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("decode a decision: %w", err)
	}
	switch {
	case !validID(r.ID):
		return nil, fmt.Errorf("decode a decision: it has no proper id: %.32q", r.ID)
	case r.IsDecision() && r.Input == nil:
		return nil, fmt.Errorf("decode decision %s: it has neither an input nor an event", r.ID)
	}
	if r.Input != nil {
		fill(r.Input)
	}
	return &r, nil
}

// fill makes lists that are missing empty, as the server asks.
func fill(in *gate.Input) {
	if in.Subject.Roles == nil {
		in.Subject.Roles = []string{}
	}
	if in.Action.Changes == nil {
		in.Action.Changes = []string{}
	}
	if in.Context.Periods == nil { // of a record from before there were any, too
		in.Context.Periods = []string{}
	}
	if in.Context.Networks == nil {
		in.Context.Networks = []string{}
	}
}
