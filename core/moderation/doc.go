// Package moderation judges messages before they become entries of a room's
// log. It does three things, in this order:
//
//  1. Clean: text hygiene. What a client sent becomes valid, composed UTF-8
//     without control or direction characters, or is refused.
//  2. Normalize: a second form of the text for matching (compatibility forms,
//     case, look-alike letters and invisible characters folded away), with a
//     map from each of its bytes back to the text people see.
//  3. Stage.Judge: every plugin of the room sees the same two forms and gives
//     one verdict. The stage merges the verdicts and masks what is to be
//     masked; no plugin's output feeds another, and none can add text.
//
// Promises: the result does not depend on the order in which plugins are
// listed (deny > hold > redact > flag > allow, spans are united, ties go to
// the smaller plugin name); masking never cuts a rune; a plugin that fails is
// treated as its Judge.OnError says; memory per call is bounded by
// Limits.InputBytes.
//
// Nothing here starts a goroutine or keeps a message. A Stage and a Tracker
// may be used from any goroutine; the plugins run one after another on the
// caller's, because eight in a row cost a third of eight goroutines.
package moderation
