// Package cluster knows which processes share one Redis: every node keeps a
// lease there and a small record of what it runs, and sees those of the others.
//
// A process start is a node of its own: a restarted one is another node with
// the same name. What it promises:
//
//   - A node that ends takes its record along. One that is killed is gone for
//     the others once its lease has run out, in Redis's time.
//   - While Redis cannot be reached nobody is declared dead: the last view
//     stays. When nobody could renew for a while, everybody is given a whole
//     lease before the first is missed.
//   - Redis is a rendezvous and no authority: a record that cannot be read
//     costs that record alone, and everything read is bounded.
//
// New starts nothing; Run renews until its context ends. OnChange, OnView and
// SetInfo are for before Run; everything else may be called from any goroutine.
package cluster
