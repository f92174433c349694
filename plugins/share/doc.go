// Package share keeps the plugins of several nodes the same: what a person does
// to the plugin folder of one node, or orders about a rollout there, holds on all.
//
// The files of a version travel as one object of package objects, named by its
// SHA-256; the head "plugins" says which version each name has, the head
// "rollouts" how its rollout stands. A Share merges three ways, between the
// folder, the head and what both last agreed on, which it remembers in a file:
//
//   - what changed in the folder alone is a person's doing, and is published as soon as
//     this node itself has accepted it;
//   - what changed in the head alone is fetched, verified and put into the folder;
//   - where both changed the head wins, and what was in the folder is kept aside.
//
// From the folder the catalog loads a version the usual way: signature, manifest,
// and a trial of this node's own. Redis is not believed: what does not have its digest or its
// bounds is refused by name, and changes nothing. While Redis is away nodes judge
// on with what they have.
//
// New starts nothing; Open does the first merge before the catalog is opened, Run
// does the others until its context ends, on one goroutine. The other methods may
// be called from any goroutine.
package share
