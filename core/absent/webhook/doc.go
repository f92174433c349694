// Package webhook delivers news for absent people to an operator's HTTP
// endpoint, signed as the Standard Webhooks specification says.
//
// A Worker takes items from a Queue, posts each until the endpoint has taken it,
// and ends it only then: whatever happens to the worker, the item is delivered
// again by another. What the endpoint refuses for good, or has not taken after
// Config.Tries attempts, becomes a dead letter. While the endpoint takes nothing
// the worker holds back (see circuit) instead of trying every item in vain.
package webhook
