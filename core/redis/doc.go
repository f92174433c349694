// Package redis is Parley's one Redis client. It wraps go-redis with the
// settings that an ordered log needs and hides the library: no other package
// but this one imports it.
//
// What it promises:
//
//   - A command is sent at most once. go-redis would send it again after a
//     broken connection (with its default of three retries one append became
//     three entries), so retries are off; whoever must retry does so by nonce.
//     It is sent on only where a node of a cluster answers that it has done
//     nothing and which node would (see Client.follow).
//   - Every call ends: within Config.CallTimeout, or the caller's earlier
//     deadline, whatever Redis or the network does.
//   - While a server answers nobody, calls to it fail at once but for one that
//     tries (see breaker.go).
//   - Concurrent calls share round trips (see pipe.go), and what waits for a
//     server is bounded: a call beyond that fails at once.
//   - Errors wrap ErrUnavailable (the outcome may be unknown), ErrOverloaded
//     (nothing was done) or are the server's own reply.
//   - A Subscriber never loses a message without saying so (Handler.Doubt).
//
// Lua goes through EVALSHA with a fallback to EVAL, not FUNCTION LOAD: a
// script is named by the hash of its text, so nodes of two versions share one
// server during an upgrade without overwriting each other's library, it needs
// no rights beyond EVAL, and it works before Redis 7. After a restart or a
// failover that lost the script cache the server answers NOSCRIPT, which says
// that nothing ran, and the text is sent.
//
// The URL says how servers are found (Mode): one server of Redis 6.2 or newer,
// the primary that sentinels name, or Redis Cluster from 7.0 on, which has
// sharded channels. All go the same way: a layout says which primary holds
// which slot, one primary holding all where there is one; an answer that speaks
// against it, or none, makes the next call look for the primaries first
// (router.go). go-redis's own clients for Sentinel and Cluster are not used:
// they send a command again after a network error, and what they are told by
// subscription can fall silent.
//
// In a cluster the keys of a script, and the channels it publishes to, must
// share a hash tag, so they do in every mode. A channel is published to with
// PublishCommand; docs/decisions/0016 is about the links that hear it.
//
// Installations that share a server are told apart by Config.Prefix or by
// database number; pub/sub ignores database numbers, so channels must begin
// with ChannelPrefix, which holds it.
//
// A Client may be used from any goroutine. Those that carry its calls end with
// them, and Close waits for them; a Subscriber's belong to its Run.
package redis
