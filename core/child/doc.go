// Package child does work on bytes of strangers in a process of its own, with
// little memory and time, so that bytes which drive a compiler mad take a
// child down and not the server. When a child does not live to answer, the
// error names the limit that ended it.
//
// Run is the parent's side, Serve the child's. The child is given no
// environment and no argument but its command; its limits and the request come
// over standard input, and it limits itself before it reads the request. Run
// may be called from any goroutine; Serve belongs to main and is called once.
package child
