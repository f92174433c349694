package plugin

import (
	"unsafe"

	"parley/sdk/abi"
)

// The guest's memory: allocated once, before the host takes its snapshot.
var (
	input []byte
	self  guest
)

//go:wasmexport abi_version
func abiVersion() uint32 { return abi.Version }

//go:wasmexport input_buffer
func inputBuffer(capacity uint32) uint32 {
	input = make([]byte, capacity)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(input))))
}

//go:wasmexport decide
func decide(ptr, length uint32) (packed uint64) {
	defer func() {
		if p := recover(); p != nil {
			println("panic while judging:", text(p))
			packed = abi.Pack(abi.Error, 0, 0)
		}
	}()
	b := written(ptr, length)
	if b == nil {
		return abi.Pack(abi.Error, 0, 0)
	}
	v, out := self.decide(registered, b)
	if out == nil {
		return abi.Pack(v, 0, 0)
	}
	return abi.Pack(v, uint32(uintptr(unsafe.Pointer(unsafe.SliceData(out)))), uint32(len(out)))
}

//go:wasmexport configure
func configure(ptr, length uint32) uint32 {
	c, ok := registered.(Configurer)
	b := written(ptr, length)
	switch {
	case !ok:
		println("this plugin takes no configuration; remove \"config\" from its manifest")
		return 1
	case b == nil:
		println("the configuration does not fit the input buffer")
		return 2
	}
	// The judge may keep what it decodes, and the buffer is written over.
	if err := c.Configure(append([]byte(nil), b...)); err != nil {
		println(err.Error())
		return 3
	}
	return 0
}

// written returns what the host wrote, which is always at the buffer's start.
func written(ptr, length uint32) []byte {
	if ptr != uint32(uintptr(unsafe.Pointer(unsafe.SliceData(input)))) || int(length) > len(input) {
		return nil
	}
	return input[:length]
}

func text(p any) string {
	switch p := p.(type) {
	case error:
		return p.Error()
	case string:
		return p
	}
	return "a value that is neither error nor string"
}
