// Command goguest is a plugin for tests: written in Go without the SDK, it does
// what the sandbox must answer for. The first word of the text says what.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"time"
	"unsafe"
)

var (
	in      []byte
	out     [512]byte
	garbage [][]byte
)

func main() {}

//go:wasmexport abi_version
func abiVersion() int32 { return 1 }

//go:wasmexport input_buffer
func inputBuffer(n int32) int32 {
	in = make([]byte, n)
	return int32(uintptr(unsafe.Pointer(&in[0])))
}

//go:wasmexport configure
func configure(_, _ int32) int32 {
	println("no", "such word:", "colour")
	return 3
}

//go:wasmexport decide
func decide(_, n int32) int64 {
	at := in[16]
	size := in[20]
	switch text := string(in[at : at+size]); text {
	case "time":
		return flag(time.Now().UTC().Format(time.RFC3339))
	case "random":
		b := make([]byte, 8)
		rand.Read(b)
		return flag(hex.EncodeToString(b))
	case "map":
		m := map[int]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
		s := ""
		for k := range m {
			s += fmt.Sprint(k)
		}
		return flag(s)
	case "file":
		_, err := os.ReadFile("/etc/passwd")
		return flag(fmt.Sprint(err))
	case "env":
		return flag(fmt.Sprint(len(os.Environ()), len(os.Args)))
	case "stderr":
		for range 100 {
			fmt.Fprintln(os.Stderr, "something went\x1b[31m wrong")
		}
	case "panic":
		panic("as it says")
	case "exit":
		os.Exit(3)
	case "sleep":
		time.Sleep(time.Hour)
	case "remember":
		garbage = append(garbage, make([]byte, 1000))
		return flag(fmt.Sprint(len(garbage)))
	case "allocate":
		for range 50 {
			garbage = append(garbage[:0], make([]byte, 1_000))
		}
	case "hoard":
		for {
			garbage = append(garbage, make([]byte, 1<<20))
		}
	}
	return 0
}

// flag answers flag with a reason.
func flag(reason string) int64 {
	clear(out[:8])
	out[4] = byte(len(reason))
	copy(out[8:], reason)
	return 1 | int64(8+len(reason))<<8 | int64(uintptr(unsafe.Pointer(&out[0])))<<32
}
