// Package objects carries what nodes share beside messages: objects, which are
// bytes named by their SHA-256, and heads, which are small values with a version
// that name the objects in force.
//
// Redis is not believed. Whoever reads an object checks it against its name,
// whatever it holds is for the reader to verify, and everything read is bounded
// before it is loaded. An object is kept while a head names it, and for an hour
// after that.
//
// A head is somebody's word, which nothing in it proves. With Config.Secrets each is
// sealed, and one that is not, or is older than one seen before, is refused and put
// right by whoever remembers what was there.
//
// A head changes by compare-and-set. Its version never repeats, not even after
// Redis has lost its data. Watchers are told of every change within a moment by
// a hint, and within 5 s without one.
//
// New starts nothing; Run watches until its context ends. OnHead is for before
// Run; everything else may be called from any goroutine.
package objects
