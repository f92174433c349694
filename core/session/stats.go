package session

import (
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/histogram"
	"parley/core/wire"
)

// Stats counts what sessions did; every number only grows.
type Stats struct {
	Opened   atomic.Uint64
	Ended    atomic.Uint64
	Sent     atomic.Uint64 // messages appended
	Repeats  atomic.Uint64 // resends answered with the first receipt
	Held     atomic.Uint64 // messages put in a review queue, appeals included
	Appeals  atomic.Uint64 // of them, appeals
	Approved atomic.Uint64 // reviews decided here
	Rejected atomic.Uint64
	PutOut   atomic.Uint64 // memberships ended by a kick, a ban or the policy
	Expired  atomic.Uint64
	// Answers are the times from a send's arrival to its answer, whatever it is.
	Answers  histogram.Histogram
	errors   map[chat.Code]*atomic.Uint64
	commands map[wire.Type]*atomic.Uint64
	closes   map[wire.CloseCode]*atomic.Uint64
}

var allCodes = []chat.Code{
	chat.CodeBadRequest, chat.CodeUnknownType, chat.CodeBadState, chat.CodeUnauthorized, chat.CodeTokenExpired, chat.CodeNameTaken,
	chat.CodeDenied, chat.CodePolicyError, chat.CodePluginError, chat.CodeNoRoom, chat.CodeNotMember,
	chat.CodeTextTooLong, chat.CodeFrameTooBig, chat.CodeRateLimited, chat.CodeSlowMode, chat.CodeTooManyRooms,
	chat.CodeTooManyConns, chat.CodeQueueFull, chat.CodeNoReview, chat.CodeNoAppeal, chat.CodeUnavailable, chat.CodeOverloaded, chat.CodeSlowConsumer, chat.CodeGoingAway, chat.CodeInternal,
}

var allCloses = []wire.CloseCode{
	wire.CloseNormal, wire.CloseProtocol, wire.CloseBinary, wire.CloseUTF8, wire.CloseTooBig, wire.CloseInternal,
	wire.CloseRestart, wire.CloseUnauthorized, wire.CloseExpired, wire.CloseDenied, wire.CloseAbuse, wire.CloseHandshake,
	wire.CloseSlow, wire.CloseNoPong, wire.CloseTooMany,
}

func newStats() *Stats {
	s := &Stats{
		Answers:  histogram.Of(250 * time.Microsecond),
		errors:   make(map[chat.Code]*atomic.Uint64),
		commands: make(map[wire.Type]*atomic.Uint64),
		closes:   make(map[wire.CloseCode]*atomic.Uint64),
	}
	for _, c := range allCodes {
		s.errors[c] = new(atomic.Uint64)
	}
	for t := range commands {
		s.commands[t] = new(atomic.Uint64)
	}
	for _, c := range allCloses {
		s.closes[c] = new(atomic.Uint64)
	}
	return s
}

func (s *Stats) error(c chat.Code) {
	if n := s.errors[c]; n != nil {
		n.Add(1)
	}
}

func (s *Stats) close(c wire.CloseCode) {
	if n := s.closes[c]; n != nil {
		n.Add(1)
	}
}

// Errors calls f for each error code with how often clients were sent it.
func (s *Stats) Errors(f func(chat.Code, uint64)) {
	for _, c := range allCodes {
		f(c, s.errors[c].Load())
	}
}

// Commands calls f for each command with how often it was received.
func (s *Stats) Commands(f func(wire.Type, uint64)) {
	for t, n := range s.commands {
		f(t, n.Load())
	}
}

// Closes calls f for each close code with how many sessions ended by it.
func (s *Stats) Closes(f func(wire.CloseCode, uint64)) {
	for _, c := range allCloses {
		f(c, s.closes[c].Load())
	}
}
