// Package decisionlog remembers what the policy decided: every refusal, and of
// what was allowed a sample. A person who was refused holds the id of the
// decision, and an operator finds by it who asked what, under which revision,
// and why the answer was no. Recorded questions are also what a new revision
// is tried on before it goes live.
//
// Records lie in a ring in memory and, where there is a folder, in rotated
// files of JSON lines. The ring is a log and everybody else a cursor in it:
// the writer of the files, and whoever follows. Add never blocks and never
// waits for a disk: where the writer lags too far behind, records are dropped
// and counted, allowed ones long before refusals.
//
// Fields that the operator wants masked are left out of a record if the policy
// that decided does not read them, since the answer does not depend on them.
// With MaskRead they are left out in any case, and such a record is marked:
// replaying it proves nothing.
//
// New starts nothing; Run writes until its context ends. Any goroutine may call
// any method.
package decisionlog
