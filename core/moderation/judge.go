package moderation

import (
	"time"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Judge is one plugin, ready to decide. All methods may be called from any
// goroutine and do not block on anything but the decision itself.
type Judge interface {
	// Name is the plugin's name: lower-case letters, digits and hyphens,
	// unique within a Source except as Staged says.
	Name() string
	// Digest is the SHA-256 of the module, in hex.
	Digest() string
	// Version is the plugin's version for people; it may be empty.
	Version() string
	// ConfigDigest is the SHA-256 of the configuration the plugin was given, in
	// hex; empty where it was given none. Two plugins of the same Digest and
	// ConfigDigest decide alike.
	ConfigDigest() string
	// Wants reports whether the plugin judges messages of that kind
	// ("message", "edit", "nick", "topic") in that room.
	Wants(room chat.RoomID, kind string) bool
	// OnError is what a failure of the plugin means: abi.Allow (open),
	// abi.Deny (closed) or abi.Hold. Anything else counts as abi.Deny.
	OnError() abi.Verdict
	// Decide judges one input, encoded by abi.AppendInput. text and normalized
	// are the two fields spans may name; they are slices of input. The judge
	// modifies none of them and keeps none after it returned. An error, the
	// verdict abi.Error and a result that breaks the ABI are all failures.
	// fuel is what the decision used, 0 where it is not metered.
	Decide(input, text, normalized []byte) (v abi.Verdict, r abi.Result, fuel uint64, err error)
}

// Rehearser is a Judge that can also decide without any consequence: nothing
// is counted, no state is consulted or changed, and no live decision waits for
// it. It answers what Decide would of a plugin in good health.
type Rehearser interface {
	Rehearse(input, text, normalized []byte) (v abi.Verdict, r abi.Result, fuel uint64, err error)
}

// Source lists the plugins in force.
type Source interface {
	// Judges returns an immutable snapshot, sorted by name. A message is
	// judged by one snapshot even when plugins are swapped meanwhile.
	Judges() []Judge
}

// Message is one text to judge.
type Message struct {
	Room    chat.RoomID
	User    chat.UserID
	Roles   []string // global and room roles; sorted and deduplicated by the stage
	Kind    string   // "message", "edit", "nick", "topic"
	Text    string   // as Clean returned it
	TimeMS  int64    // Unix ms at which the node accepted it
	Signals abi.Signals
}

// Result is what the plugins of a room decided together.
type Result struct {
	Verdict abi.Verdict // Allow, Flag, Redact, Hold or Deny
	// Text is the message as people may see it: Message.Text, with the marked
	// parts masked when Verdict is Redact.
	Text string
	// Reasons are those of the plugins whose verdict prevailed, by plugin
	// name. Source is "plugin:NAME". After Flag they are for moderators; after
	// Redact, Hold and Deny the sender is told.
	Reasons []chat.Reason
	// Failed says that a Deny or Hold prevailed only because a plugin failed.
	Failed bool
	// Records say what each plugin did, by plugin name; shadows come after
	// those that counted.
	Records []Record
	// Idle counts the plugins there were, where none of them was asked.
	Idle int
	// Input is a copy of what the plugins saw, encoded by abi.AppendInput;
	// empty unless the stage was asked to keep it (see Config.Keep).
	Input []byte
}

// Record is one plugin's part in a decision. It holds nothing of the message.
type Record struct {
	Plugin  string
	Digest  string      // of the module
	Version string      // for people
	Config  string      // digest of its configuration
	OnError abi.Verdict // what a failure of it means
	Part    Part        // Enforce, Canary or Shadow; a Canary with Err did not count
	Verdict abi.Verdict // its own verdict; abi.Error when it failed
	Code    uint16      // the plugin's number for its rule
	Score   uint16      // 0..1000
	Fuel    uint64
	Time    time.Duration // wall time of Decide
	Err     error         // why it failed, nil if it did not

	spans []abi.Span // of a Redact
}
