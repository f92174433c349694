package redis

import (
	"fmt"
	"strconv"
	"strings"
)

// slotCount is how many slots a cluster divides its keys into.
const slotCount = 16384

// anySlot stands for a command without a key, which any primary may answer.
const anySlot = -1

// Slot returns the slot of a key or of a sharded channel: by what stands
// between the first '{' and the next '}', if that is not empty, else by all of
// it.
// Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
func Slot(key string) int {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if n := strings.IndexByte(key[i+1:], '}'); n > 0 {
			key = key[i+1 : i+1+n]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return int(crc % slotCount)
}

// crcTable is CRC-16/XMODEM, polynomial 0x1021, one byte at a time.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()

// tagWhere returns a hash tag whose slot ok accepts, or "" if ok accepts none.
func tagWhere(ok func(slot int) bool) string {
	// Numbers spread over the slots like chance: one slot alone is missed by
	// this many with probability e^-64.
	for i := range 64 * slotCount {
		if tag := strconv.Itoa(i); ok(Slot(tag)) {
			return tag
		}
	}
	return ""
}

// keyless are the commands that name no key. They go to any primary.
var keyless = map[string]bool{
	"ping": true, "time": true, "info": true, "config": true, "role": true, "cluster": true,
	"script": true, "command": true, "dbsize": true, "acl": true, "client": true, "wait": true,
}

// keyAt says which argument is the first key, for commands where it is not the
// first argument.
var keyAt = map[string]int{
	"xgroup": 2, "xinfo": 2, "object": 2, "memory": 2,
}

// slotOf returns the slot that a command goes to.
func slotOf(args []any) int {
	name := strings.ToLower(text(args[0]))
	at := 1
	switch {
	case keyless[name]:
		return anySlot
	case keyAt[name] != 0:
		at = keyAt[name]
	case name == "eval" || name == "evalsha":
		if len(args) > 2 && text(args[2]) == "0" {
			return anySlot
		}
		at = 3
	case name == "xread" || name == "xreadgroup":
		for at < len(args) && !strings.EqualFold(text(args[at]), "streams") {
			at++
		}
		at++
	}
	if at >= len(args) {
		return anySlot
	}
	return Slot(text(args[at]))
}

// text is an argument as it is sent.
func text(arg any) string {
	switch a := arg.(type) {
	case string:
		return a
	case []byte:
		return string(a)
	}
	return fmt.Sprint(arg)
}
