// Package plugins runs moderation plugins: WebAssembly modules of strangers
// that judge each message in well under a microsecond and can hurt nobody.
//
// A Catalog watches one folder. For each NAME.wasm, with an optional
// manifest beside or within it (see Manifest), it
//
//  1. checks the module's digest and signature,
//  2. reads it under strict bounds (package wasmbin), checks its exports
//     against package abi and has wazero validate it,
//  3. rewrites it so that every step costs fuel (package meter),
//  4. compiles it with wazero, runs its initialisers and its configuration,
//     asks it about one neutral message, takes a snapshot of its memory, and
//     tests it with its manifest's vectors, on wazero's interpreter as well.
//
// Steps 2 to 4 happen in a child process that limits itself (see Trial) the
// first time a module is seen; afterwards the verdict is remembered and the
// machine code cached, and the server takes only the snapshot itself.
//
// What is in force stays until another version is loaded; a trial that the
// machine's troubles ended is repeated; and where a plugin ought to judge and no
// version of it can be loaded, its on_error decides about its messages.
//
// A version may be put on trial before it comes into force (see Rollout), and
// one that fails repeatedly is not asked until probes say that it is well.
//
// Promises: a decision is a function of its input alone. Guests see a frozen
// clock, seeded random numbers, no files and no network; globals and the memory
// that was written to are put back after every decision, so nothing is
// remembered from one message to the next, and the same input uses the same
// fuel everywhere. A guest that loops, recurses, grows or traps ends its own
// decision with an error and nothing else.
//
// A Catalog's and a Plugin's methods may be called from any goroutine.
// Decisions run on the caller's goroutine. New starts nothing, Run blocks, and
// Close may be called twice, after the last decision. No other package imports
// wazero.
package plugins
