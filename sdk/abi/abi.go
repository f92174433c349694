// Package abi is the contract between Parley and a moderation plugin: ABI
// version 1. It is the one source of truth; the host (package plugins) and the
// Go SDK (package sdk/plugin) are built on these constants and codecs, and
// docs/plugin-abi.md says the same in prose. It imports the standard library
// alone and compiles for wasip1, so a guest can use it.
//
// A guest is a WebAssembly module that exports
//
//	memory
//	abi_version() -> i32               must return 1
//	input_buffer(capacity i32) -> i32  asked once: where the host writes input
//	decide(ptr i32, len i32) -> i64    judges one input
//	configure(ptr i32, len i32) -> i32 optional: JSON config, 0 = accepted
//	_initialize()                      optional: run once, before anything else
//
// and imports nothing. Go guests may import the wasi_snapshot_preview1
// functions their runtime needs, which the host serves with stubs.
package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Version is the ABI version that abi_version returns and that inputs carry.
const Version = 1

// Names of the exports.
const (
	ExportMemory      = "memory"
	ExportVersion     = "abi_version"
	ExportInputBuffer = "input_buffer"
	ExportDecide      = "decide"
	ExportConfigure   = "configure"
	ExportInitialize  = "_initialize"
)

// Field numbers an input's fields. New fields are appended; a guest ignores
// those it does not know.
type Field uint32

// The fields of an input, in their fixed order.
const (
	FieldText       Field = iota // the message, UTF-8
	FieldNormalized              // NFKC, zero-width stripped, confusables' skeleton
	FieldUser                    // user name
	FieldRoom                    // room name
	FieldRoles                   // global and room roles, sorted, '\n' between them
	FieldKind                    // "message", "edit", "nick", "topic"
	FieldSignals                 // Signals, 12 bytes; see EncodeSignals

	NumFields = int(iota)
)

// Verdict is the low byte of decide's result.
type Verdict uint8

// The verdicts. Every one but Allow points to a result header.
const (
	Allow  Verdict = 0
	Flag   Verdict = 1   // let pass, mark for moderators
	Redact Verdict = 2   // mask the spans
	Hold   Verdict = 3   // keep for review
	Deny   Verdict = 4   // refuse
	Error  Verdict = 255 // the guest could not judge; treated as a fault
)

// String returns the verdict's name in lower case.
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Flag:
		return "flag"
	case Redact:
		return "redact"
	case Hold:
		return "hold"
	case Deny:
		return "deny"
	case Error:
		return "error"
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Sizes and bounds, in bytes where not said otherwise.
const (
	InputHeaderSize  = 16 // u32 version, u32 nfields, i64 ts_ms
	FieldEntrySize   = 8  // u32 offset, u32 length; offset from the input's start
	ResultHeaderSize = 8  // u16 code, u16 score, u16 reason length, u16 span count
	SpanSize         = 12 // u32 field, u32 start, u32 length
	SignalsSize      = 12 // u32 recent messages a minute, u32 repeats, u32 account age in hours
	MaxReason        = 256
	MaxSpans         = 256      // spans of one result
	MaxInput         = 16 << 10 // default of the manifest's limits.input_bytes
	MaxOutput        = 4 << 10  // default of the manifest's limits.output_bytes
)

// Span is a run of bytes that a Redact verdict masks, inside FieldText or
// FieldNormalized, on UTF-8 boundaries.
type Span struct {
	Field  Field
	Start  uint32 // bytes from the field's first byte
	Length uint32 // bytes, at least 1
}

// Result is what every verdict but Allow points to:
// header, reason, spans, without padding.
type Result struct {
	Code   uint16 // the plugin's own number for the rule that fired
	Score  uint16 // 0..1000, how sure the plugin is
	Reason string // one sentence for people, UTF-8, at most MaxReason bytes
	Spans  []Span // Redact only: sorted by field and start, not overlapping
}

// Pack builds decide's return value: bits 0-7 verdict, 8-31 length of the
// result, 32-63 its pointer. Allow is plain 0.
func Pack(v Verdict, ptr, length uint32) uint64 {
	return uint64(v) | uint64(length&0xffffff)<<8 | uint64(ptr)<<32
}

// Unpack is Pack's inverse.
func Unpack(r uint64) (v Verdict, ptr, length uint32) {
	return Verdict(r), uint32(r >> 32), uint32(r>>8) & 0xffffff
}

// Signals are facts the host computes about the author.
type Signals struct {
	RecentPerMinute uint32 // messages in this room in the last 60 s
	Repeats         uint32 // how many of the last ones had the same text
	AccountAgeHours uint32 // 0 for guests and where unknown
}

// Input is one message to judge.
type Input struct {
	TimeMS     int64 // Unix ms at which the host accepted the message
	Text       []byte
	Normalized []byte
	User       string
	Room       string
	Roles      string // '\n' between roles
	Kind       string
	Signals    Signals
}

// InputSize returns the encoded size of in.
func InputSize(in *Input) int {
	return InputHeaderSize + NumFields*FieldEntrySize + len(in.Text) + len(in.Normalized) +
		len(in.User) + len(in.Room) + len(in.Roles) + len(in.Kind) + SignalsSize
}

// AppendInput appends the encoded input to dst.
func AppendInput(dst []byte, in *Input) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, Version)
	dst = le.AppendUint32(dst, uint32(NumFields))
	dst = le.AppendUint64(dst, uint64(in.TimeMS))
	off := uint32(InputHeaderSize + NumFields*FieldEntrySize)
	for _, n := range [NumFields]int{len(in.Text), len(in.Normalized), len(in.User), len(in.Room), len(in.Roles), len(in.Kind), SignalsSize} {
		dst = le.AppendUint32(dst, off)
		dst = le.AppendUint32(dst, uint32(n))
		off += uint32(n)
	}
	dst = append(dst, in.Text...)
	dst = append(dst, in.Normalized...)
	dst = append(dst, in.User...)
	dst = append(dst, in.Room...)
	dst = append(dst, in.Roles...)
	dst = append(dst, in.Kind...)
	dst = le.AppendUint32(dst, in.Signals.RecentPerMinute)
	dst = le.AppendUint32(dst, in.Signals.Repeats)
	return le.AppendUint32(dst, in.Signals.AccountAgeHours)
}

// Errors of the decoders.
var (
	ErrInput  = errors.New("abi: malformed input")
	ErrResult = errors.New("abi: malformed result")
)

// FieldBytes returns one field of an encoded input, without copying. A field
// the input does not have is nil.
func FieldBytes(input []byte, f Field) ([]byte, error) {
	if len(input) < InputHeaderSize {
		return nil, fmt.Errorf("%w: %d bytes, the header has %d", ErrInput, len(input), InputHeaderSize)
	}
	le := binary.LittleEndian
	if v := le.Uint32(input); v != Version {
		return nil, fmt.Errorf("%w: version %d, want %d", ErrInput, v, Version)
	}
	if n := le.Uint32(input[4:]); uint32(f) >= n {
		return nil, nil
	}
	at := uint64(InputHeaderSize) + uint64(f)*FieldEntrySize
	if at+FieldEntrySize > uint64(len(input)) {
		return nil, fmt.Errorf("%w: field table cut short", ErrInput)
	}
	off, n := uint64(le.Uint32(input[at:])), uint64(le.Uint32(input[at+4:]))
	if off+n > uint64(len(input)) {
		return nil, fmt.Errorf("%w: field %d lies outside the input", ErrInput, f)
	}
	return input[off : off+n : off+n], nil
}

// InputTime returns the input's time in Unix ms, 0 if it is malformed.
func InputTime(input []byte) int64 {
	if len(input) < InputHeaderSize {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(input[8:]))
}

// AppendResult appends the encoded result to dst. It does not check bounds:
// DecodeResult, which the host runs, does.
func AppendResult(dst []byte, r *Result) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, r.Code)
	dst = le.AppendUint16(dst, r.Score)
	dst = le.AppendUint16(dst, uint16(len(r.Reason)))
	dst = le.AppendUint16(dst, uint16(len(r.Spans)))
	dst = append(dst, r.Reason...)
	for _, s := range r.Spans {
		dst = le.AppendUint32(dst, uint32(s.Field))
		dst = le.AppendUint32(dst, s.Start)
		dst = le.AppendUint32(dst, s.Length)
	}
	return dst
}

// DecodeResult decodes and checks a result against the input it answers:
// exact length, bounds of reason, score and spans, spans only with Redact,
// sorted, not overlapping, on UTF-8 boundaries of FieldText or
// FieldNormalized. The returned Result shares nothing with b.
func DecodeResult(v Verdict, b, text, normalized []byte) (Result, error) {
	var r Result
	if len(b) < ResultHeaderSize {
		return r, fmt.Errorf("%w: %d bytes, the header has %d", ErrResult, len(b), ResultHeaderSize)
	}
	le := binary.LittleEndian
	r.Code, r.Score = le.Uint16(b), le.Uint16(b[2:])
	nreason, nspans := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	switch {
	case r.Score > 1000:
		return r, fmt.Errorf("%w: score %d above 1000", ErrResult, r.Score)
	case nreason > MaxReason:
		return r, fmt.Errorf("%w: reason of %d bytes, at most %d", ErrResult, nreason, MaxReason)
	case nspans > MaxSpans:
		return r, fmt.Errorf("%w: %d spans, at most %d", ErrResult, nspans, MaxSpans)
	case len(b) != ResultHeaderSize+nreason+nspans*SpanSize:
		return r, fmt.Errorf("%w: %d bytes, header says %d", ErrResult, len(b), ResultHeaderSize+nreason+nspans*SpanSize)
	case nspans > 0 && v != Redact:
		return r, fmt.Errorf("%w: spans with verdict %s", ErrResult, v)
	case nspans == 0 && v == Redact:
		return r, fmt.Errorf("%w: redact without spans", ErrResult)
	}
	reason := b[ResultHeaderSize : ResultHeaderSize+nreason]
	if !utf8.Valid(reason) {
		return r, fmt.Errorf("%w: reason is not UTF-8", ErrResult)
	}
	r.Reason = string(reason)
	if nspans == 0 {
		return r, nil
	}
	r.Spans = make([]Span, nspans)
	for i := range r.Spans {
		at := b[ResultHeaderSize+nreason+i*SpanSize:]
		s := Span{Field(le.Uint32(at)), le.Uint32(at[4:]), le.Uint32(at[8:])}
		field := text
		switch s.Field {
		case FieldText:
		case FieldNormalized:
			field = normalized
		default:
			return r, fmt.Errorf("%w: span %d names field %d, only text and normalised text have spans", ErrResult, i, s.Field)
		}
		end := uint64(s.Start) + uint64(s.Length)
		if s.Length == 0 || end > uint64(len(field)) {
			return r, fmt.Errorf("%w: span %d [%d,%d) lies outside its field of %d bytes", ErrResult, i, s.Start, end, len(field))
		}
		if !boundary(field, uint64(s.Start)) || !boundary(field, end) {
			return r, fmt.Errorf("%w: span %d [%d,%d) cuts a rune", ErrResult, i, s.Start, end)
		}
		if i > 0 {
			p := r.Spans[i-1]
			if s.Field < p.Field || s.Field == p.Field && uint64(s.Start) < uint64(p.Start)+uint64(p.Length) {
				return r, fmt.Errorf("%w: span %d overlaps or precedes span %d", ErrResult, i, i-1)
			}
		}
		r.Spans[i] = s
	}
	return r, nil
}

func boundary(b []byte, at uint64) bool {
	return at == uint64(len(b)) || utf8.RuneStart(b[at])
}
