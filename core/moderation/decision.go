package moderation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"parley/core/chat"
)

// Decision is the record of how one message was judged: enough to say later
// who decided what and why, and to find out whether they would decide so
// again. It holds a hash of the text, not the text. It is a value; nothing in
// it is modified once it is made.
type Decision struct {
	// ID is that of the message, of its review, or one made for it where it
	// was denied.
	ID   chat.MessageID `json:"id"`
	Room chat.RoomID    `json:"room"`
	User chat.UserID    `json:"user"`
	Kind string         `json:"kind"`
	Time int64          `json:"ts"` // Unix ms at which it was judged
	// Text is the SHA-256 of the original text, in hex.
	Text string `json:"text_sha256"`
	// Policy is the revision of the policy that let the message come this far.
	Policy  string        `json:"policy_revision"`
	Verdict string        `json:"verdict"` // of all plugins together
	Failed  bool          `json:"failed,omitempty"`
	Reasons []chat.Reason `json:"reasons,omitempty"`
	Plugins []Vote        `json:"plugins"`
}

// Vote is one plugin's part in a Decision.
type Vote struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Digest  string `json:"digest"`                  // of the module
	Config  string `json:"config_digest,omitempty"` // of what it was configured with
	Part    string `json:"part,omitempty"`          // "shadow" or "canary" of a version on trial, see Part
	OnError string `json:"on_error,omitempty"`      // the verdict that its failure means
	Verdict string `json:"verdict"`                 // "error" when it failed
	Code    uint16 `json:"code,omitempty"`
	Score   uint16 `json:"score,omitempty"`
	Fuel    uint64 `json:"fuel"`
	TimeNS  int64  `json:"time_ns"`
	Error   string `json:"error,omitempty"`
}

// NewDecision makes the record of a judged message.
func NewDecision(id chat.MessageID, m *Message, res *Result, policy string) *Decision {
	d := new(Decision)
	d.Fill(make([]Vote, 0, len(res.Records)), id, m, res, policy)
	return d
}

// Fill is NewDecision for many at a time: it appends the votes to votes and
// returns that.
func (d *Decision) Fill(votes []Vote, id chat.MessageID, m *Message, res *Result, policy string) []Vote {
	sum := sha256.Sum256([]byte(m.Text))
	from := len(votes)
	for i := range res.Records {
		votes = append(votes, vote(&res.Records[i]))
	}
	*d = Decision{
		ID: id, Room: m.Room, User: m.User, Kind: m.Kind, Time: m.TimeMS, Text: hex.EncodeToString(sum[:]),
		Policy: policy, Verdict: res.Verdict.String(), Failed: res.Failed, Reasons: res.Reasons, Plugins: votes[from:len(votes):len(votes)],
	}
	return votes
}

func vote(r *Record) Vote {
	v := Vote{
		Name: r.Plugin, Version: r.Version, Digest: r.Digest, Config: r.Config, Verdict: r.Verdict.String(),
		Code: r.Code, Score: r.Score, Fuel: r.Fuel, TimeNS: r.Time.Nanoseconds(),
	}
	if r.Part == Shadow || r.Part == Canary {
		v.Part = r.Part.String()
	}
	if r.OnError != 0 {
		v.OnError = r.OnError.String()
	}
	if r.Err != nil {
		v.Error = clip(r.Err.Error())
	}
	return v
}

// maxVoteError bounds what is kept of a failure, in bytes.
const maxVoteError = 512

// clip cuts between two runes, and leaves nothing that JSON would change: the
// digest of a decision must outlive it.
func clip(s string) string {
	if s = strings.ToValidUTF8(s, "?"); len(s) > maxVoteError {
		s = strings.ToValidUTF8(s[:maxVoteError], "")
	}
	return s
}

// Digest names the record: the SHA-256 of its JSON, in hex. The same decision,
// decoded, has the same digest.
func (d *Decision) Digest() string {
	b, err := json.Marshal(d)
	if err != nil { // the type cannot fail to encode
		panic("moderation: encode a decision: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
