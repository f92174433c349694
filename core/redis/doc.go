// Package redis is Parley's one Redis client. It wraps go-redis with the
// settings that an ordered log needs and hides the library: no other package
// but this one imports it.
//
// What it promises:
//
//   - A command is sent at most once. go-redis would send it again after a
//     broken connection (with its default of three retries one append became
//     three entries), so retries are off; whoever must retry does so by nonce.
//   - Every call ends: within Config.CallTimeout, or the caller's earlier
//     deadline, whatever Redis or the network does.
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
// Redis 6.2 or newer, one primary, reached directly or through a proxy that
// follows failovers. Installations that share a server are told apart by
// Config.Prefix or by database number; pub/sub ignores database numbers, so
// channels must begin with ChannelPrefix, which holds it.
//
// A Client may be used from any goroutine. Those that carry its calls end with
// them, and Close waits for them; a Subscriber's belong to its Run.
package redis
