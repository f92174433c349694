package wire

import (
	"parley/core/chat"
	"parley/core/journal"
)

// The actions of the command review.
const (
	Approve = "approve"
	Reject  = "reject"
)

// ReviewsEvent answers reviews: the room's queue for a moderator, one's own
// held messages for everybody else.
type ReviewsEvent struct {
	Type    Type         `json:"type"`
	ID      string       `json:"id,omitempty"`
	Room    chat.RoomID  `json:"room"`
	All     bool         `json:"all"`               // of everybody; may be decided with review
	Open    []ReviewItem `json:"open"`              // oldest first
	Decided []ReviewItem `json:"decided,omitempty"` // newest first
	More    bool         `json:"more"`              // open ones were left out; decide some and ask again
}

// ReviewItem is a message that waits for a moderator, or what one decided.
type ReviewItem struct {
	ReviewID chat.MessageID `json:"review_id"` // and of the message, once approved
	From     chat.UserID    `json:"from"`
	TS       int64          `json:"ts"` // Unix ms at which it was sent
	Nonce    string         `json:"nonce,omitempty"`
	Text     string         `json:"text,omitempty"` // while open
	Outcome  chat.Outcome   `json:"outcome"`        // held, accepted, rejected, expired
	Reasons  []chat.Reason  `json:"reasons,omitempty"`
	Appeal   bool           `json:"appeal,omitzero"`
	Record   string         `json:"record,omitempty"`    // digest of the decision record; for moderators
	By       chat.UserID    `json:"by,omitempty"`        // who decided; for moderators
	Decided  int64          `json:"decided_ts,omitzero"` // Unix ms
}

// ReviewEvent answers review, and tells the author of a decision and the
// moderators who look at the queue of every change. It has no seq and may be
// missed: ask with reviews.
type ReviewEvent struct {
	Type Type        `json:"type"`
	ID   string      `json:"id,omitempty"`
	Room chat.RoomID `json:"room"`
	ReviewItem
	Seq uint64 `json:"seq,omitzero"` // of the entry, in the answer to an approval
}

// ItemOf is how v is shown. Only moderators are told who decided and by which
// record, and its text is told to those who ask with reviews.
func ItemOf(v *journal.Review, moderator bool) ReviewItem {
	it := ReviewItem{ReviewID: v.Entry.ID, From: v.Entry.From, TS: v.Entry.Time, Nonce: v.Entry.Nonce, Text: v.Entry.Text,
		Outcome: v.Entry.Outcome, Reasons: v.Entry.Reasons, Appeal: v.Appeal, Decided: v.Decided}
	if moderator {
		it.By, it.Record = v.By, v.Record
	}
	return it
}

func checkReview(c *Command) *chat.Error {
	if err := checkRoom(c); err != nil {
		return err
	}
	switch {
	case c.ReviewID == "" || len(c.ReviewID) > MaxReviewID:
		return chat.Errorf(chat.CodeBadRequest, `review needs the "review_id" that reviews gave, of at most %d bytes`, MaxReviewID)
	case c.Action != Approve && c.Action != Reject:
		return chat.Errorf(chat.CodeBadRequest, `"action" must be approve or reject`)
	}
	return checkReason(c)
}

func checkAppeal(c *Command) *chat.Error {
	if err := checkRoom(c); err != nil {
		return err
	}
	if c.Appeal == "" || len(c.Appeal) > MaxReviewID {
		return chat.Errorf(chat.CodeBadRequest, `appeal needs the "appeal" of the error that refused the message`)
	}
	return checkReason(c)
}

func checkReason(c *Command) *chat.Error {
	if len(c.Reason) > MaxReason {
		return chat.Errorf(chat.CodeBadRequest, `"reason" has %d bytes, at most %d are allowed`, len(c.Reason), MaxReason)
	}
	return nil
}
