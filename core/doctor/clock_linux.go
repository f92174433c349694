package doctor

import (
	"fmt"
	"syscall"
	"time"
)

// From <linux/timex.h>.
const (
	staUnsync = 0x0040
	timeError = 5
)

// clock asks the kernel whether something keeps its time right (adjtimex(2)).
func clock() Check {
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	if err != nil {
		return unknown("clock", err)
	}
	return judgeClock(state, int(t.Status), time.Duration(t.Maxerror)*time.Microsecond)
}

// maxClockError is how far clocks may be apart: tokens and retention count in
// seconds.
const maxClockError = time.Second

func judgeClock(state, status int, maxError time.Duration) Check {
	check := Check{Name: "clock", State: OK, Found: fmt.Sprintf("synchronised, at most %v off", maxError)}
	if state == timeError || status&staUnsync != 0 {
		check.Found = "not synchronised"
	}
	if check.Found == "not synchronised" || maxError > maxClockError {
		check.State = Warn
		check.Change = "an NTP client: the times of messages and the lifetime of tokens are taken from this clock (order and heartbeats are not)"
		check.Command = "timedatectl set-ntp true"
	}
	return check
}
