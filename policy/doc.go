// Package policy decides who may do what, by Rego that an operator owns.
//
// An Engine is one compiled policy: a set of files, checked completely before
// it exists. It answers a gate.Input with a gate.Decision and depends on
// nothing else: no clock, no network, no randomness, no state of the process
// (see pure.go). That purity is what lets every Engine keep a cache of its own
// answers, keyed by exactly the input fields its rules can read (reads.go),
// and lets every node of a cluster decide alike.
//
// Live holds the Engine in use behind one atomic pointer. A new policy is
// built completely, tested, and then swapped in; a decision under way finishes
// on the Engine it began with, so none is dropped and none is mixed.
//
// A policy that cannot answer (undefined, error, malformed, too slow) denies:
// Decision.Failed is set, its one reason has code "policy_error" and a sentence
// without details, and the cause goes to the log.
//
// Engine and Live may be used from any goroutine. Nothing here starts a
// goroutine that outlives the call. Decisions are shared: callers must not
// change the slices and pointers in them. The package is the only home of OPA.
package policy
