// Package chaos breaks a cluster in every way that its documentation speaks
// of, with real nodes, real redis-servers and clients that resend and resume,
// and lets core/checker judge what the clients saw. docs/delivery.md, How it
// is tested, lists the faults and what each must not cost.
//
// Each test is a kind of fault. In its short form, which is part of `make
// test`, the fault happens once or twice; with PARLEY_CHAOS=long, which is
// `make chaos`, up to 50 times. At the end the counts of all kinds are printed,
// and written to the file that PARLEY_CHAOS_COUNTS names.
//
// There is nothing to import here. The tests need the Go toolchain and
// redis-server on the PATH.
package chaos
