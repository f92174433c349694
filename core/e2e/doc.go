// Package e2e tests Parley from outside: it builds the real binary and the
// real example plugins, starts real processes with a configuration file, a
// data folder and ports of their own, and talks to them as clients and
// operators do. What clients did and saw is judged by core/checker.
//
// PARLEY_LONG=1 makes the drain of a few hundred clients one of 5,000, for which the
// test and the server each need more than 5,000 open files, and of 200 swaps of
// the policy under load 2,000.
//
// There is nothing to import here; what starts nodes and clients is package rig.
// The tests need the Go toolchain, git,
// redis-server and strace on the PATH, and say which one is missing.
package e2e
