// Package preview says what a new revision of the policy would change, by
// asking it and the one in use what people have really asked, and whether that
// is more than the operators want to happen unseen.
//
// Compare is a pure function of two engines and recorded decisions. Guard
// judges its Report. Both may be used from any goroutine.
package preview
