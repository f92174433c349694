// Package bench is `platform bench`: it starts a server (or takes a running
// one), puts load on it from client processes of its own (core/bench/load),
// and says what that cost the server and how well it served.
//
// A run is one call of Run. It belongs to one goroutine, and when it returns,
// every process it has started has ended and its temporary folder is gone.
package bench
