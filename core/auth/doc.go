// Package auth proves who a connection speaks for.
//
// A Verifier turns a signed token (JWT, RFC 7519) into a chat.Identity. Guests
// hands out names to people without a token and lets them come back to theirs
// with a resume secret. KnownUsers remembers which names belong to token
// users, so that no guest ever gets one. AdminToken guards the admin API.
//
// Promises: one signature algorithm is accepted, the configured one; a token
// without an end is refused; secrets are compared in constant time and appear
// in no error text; whatever a client sees is a *chat.Error with one safe
// sentence. Nothing here starts a goroutine; every exported method may be
// called from any goroutine.
package auth
