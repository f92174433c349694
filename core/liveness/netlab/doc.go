// Package netlab is a network to break: two network namespaces of the Linux
// kernel, and between them a link that this process carries packet by packet
// and can slow down, make lossy, cut, cut in one direction only, or lead through
// a NAT that forgets. It is for
// tests and experiments that need real TCP on a bad path. It needs root,
// /dev/net/tun, and for Side.NFT the nft program.
//
// Everything a Lab makes lives in namespaces without a name and ends with
// Close or with the process. Do runs a function on a thread inside a
// namespace: sockets and processes made there stay there, wherever they are
// used afterwards. All methods may be called from any goroutine.
package netlab
