package wire

import "parley/core/chat"

// WhyEvent answers why: whether the person may post in the room just now, and
// what stands in the way. Nothing was posted, counted or recorded to find out.
type WhyEvent struct {
	Type Type        `json:"type"`
	ID   string      `json:"id,omitempty"`
	Room chat.RoomID `json:"room"`
	User chat.UserID `json:"user"`
	// May says that a message would be taken: posted, or held for a moderator.
	May bool `json:"may"`
	// Outcome is what would become of the text that was given, where it may be
	// posted: accepted, redacted or held.
	Outcome chat.Outcome `json:"outcome,omitempty"`
	// Blocks are what stands in the way, in the order in which a send meets it;
	// with the outcome redacted or held also what plugins mind in the text.
	Blocks []WhyBlock `json:"blocks"`
	// Note says what the answer had to assume.
	Note string `json:"note,omitempty"`
	// Revision of the policy that was asked; for moderators.
	Revision string `json:"revision,omitempty"`
}

// Who blocks. A client treats one it does not know as "policy".
const (
	ByRoom      = "room"       // it does not exist, or its queue is full
	ByText      = "text"       // the text is not fit to be posted, or too long
	ByPolicy    = "policy"     // a rule
	BySlowMode  = "slow_mode"  // the room's, or that of a rule
	ByRateLimit = "rate_limit" // the connection's, or that of a rule
	ByPlugin    = "plugin"
)

// WhyBlock is one thing that keeps a person from posting.
type WhyBlock struct {
	By   string `json:"by"`
	Code string `json:"code"` // of the error, or of the reason, that a send would get
	Text string `json:"text"`
	// UntilTS is when it ends by itself, in Unix ms; absent = it does not, or
	// nobody knows.
	UntilTS int64 `json:"until_ts,omitzero"`
	// Change is a sentence: what would change it.
	Change string `json:"change"`
	Source string `json:"source,omitempty"` // as in a reason, "plugin:wordlist"

	// For moderators: the rule that spoke, or the version of the plugin.
	Rule   *WhyRule   `json:"rule,omitempty"`
	Plugin *WhyPlugin `json:"plugin,omitempty"`
}

// WhyRule is where a rule stands in the policy.
type WhyRule struct {
	File  string `json:"file"`
	Line  int    `json:"line"`
	Name  string `json:"name"`
	Words string `json:"words,omitempty"` // what its author says it is for
}

// WhyPlugin is the version of a plugin that judged.
type WhyPlugin struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Digest  string `json:"digest,omitempty"` // of the module
	Part    string `json:"part"`             // enforce or canary
	Verdict string `json:"verdict"`
	Code    int    `json:"code,omitzero"` // its number for its rule
	Error   string `json:"error,omitempty"`
}

func checkWhy(c *Command) *chat.Error {
	if err := checkRoom(c); err != nil {
		return err
	}
	if c.User != "" && !chat.ValidUser(c.User) {
		return chat.Errorf(chat.CodeBadRequest, `"user" is no name of a person; leave it out to ask about yourself`)
	}
	return nil
}
