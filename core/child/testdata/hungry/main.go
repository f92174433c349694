// Command hungry is a child that takes what it can get.
package main

import (
	"os"

	"parley/core/child"
)

func main() {
	os.Exit(child.Serve(os.Stdin, os.Stdout, 1<<10, func(request []byte) []byte {
		if string(request) == "recurse" {
			return []byte{recurse(0)}
		}
		var all [][]byte
		for {
			b := make([]byte, 16<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			if len(all) > 1<<10 {
				return all[0]
			}
		}
	}))
}

func recurse(n int) byte {
	var room [1024]byte
	room[n%1024] = 1
	return recurse(n+1) + room[0]
}
