// Package plugins runs moderation plugins: WebAssembly modules of strangers
// that judge each message in well under a microsecond and can hurt nobody.
//
// A Catalog watches one folder. For each NAME.wasm, with an optional
// NAME.json beside it (see Manifest), it
//
//  1. reads the module under strict bounds (package wasmbin),
//  2. validates it, checks its exports against package abi and its digest
//     against the manifest,
//  3. rewrites it so that every step costs fuel (package meter),
//  4. compiles it with wazero, runs its initialisers and its configuration,
//     asks it about one neutral message, and takes a snapshot of its memory.
//
// Only a plugin that passed all of this enters the set that Judges returns,
// and the set changes in one step. A file that fails is refused by name and
// reason while the version loaded before it stays in force.
//
// A version may be put on trial before it comes into force (see Rollout), and
// one that fails repeatedly is not asked until probes say that it is well.
//
// Promises: a decision is a function of its input alone. Guests see a frozen
// clock, seeded random numbers, no files and no network; memory and globals
// are put back after every decision, so nothing is remembered from one message
// to the next, and the same input uses the same fuel everywhere. A guest that
// loops, recurses, grows or traps ends its own decision with an error and
// nothing else.
//
// A Catalog's and a Plugin's methods may be called from any goroutine.
// Decisions run on the caller's goroutine. New starts nothing, Run blocks, and
// Close may be called twice, after the last decision. No other package imports
// wazero.
package plugins
