// Package signers says whose signatures on commits and tags count, and judges
// one: made with git's SSH format (SSHSIG, namespace "git") by a key of an
// OpenSSH allowed_signers list, or with OpenPGP by a key of an exported
// keyring.
//
// A signature counts when its key may sign both at the time the signed object
// names and now. The object's time is its signer's word, so a key that has
// ended is not believed about the past either: whoever found it could write any
// date.
//
// A Set is immutable; any goroutine may use it. Commits, tags and signatures
// are bytes from outside and may be anything.
package signers
