// Package gitsync keeps the policy of a Git repository live: it polls one ref,
// reads the folder of a new commit into memory, and hands the files to a
// callback that checks them and swaps the policy. The last commit that was
// taken is kept on disk, so a restart needs no network.
//
// Nothing the repository does can disturb deciding: an unreachable remote, a
// broken commit or an oversize one only shows in Status and the log. A refused
// commit is not tried again until the ref moves.
//
// Before a commit is handed over it must be signed, where signers are
// configured, and descend from the one in use, unless an operator pins it.
//
// Repositories are read in place when they lie on this machine (a path or a
// file:// URL) and by smart HTTP or ssh otherwise; no git or ssh binary is
// needed. Everything
// read is bounded: bytes on the wire, objects, inflated size, tree depth,
// entries, and the bounds of policy.Files. Links and submodules are refused.
//
// New starts nothing; Run blocks. Restore, Sync and Run must not overlap;
// everything else may be called from any goroutine. The package is the only
// home of go-git.
package gitsync
