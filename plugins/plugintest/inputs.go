package plugintest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"parley/plugins"
	"parley/sdk/abi"
)

var inputRules = []rule{
	{"every field is read", func(k *kit) error {
		in := message("")
		in.User, in.Room, in.Roles, in.Kind = "märta", "support-7", "admin\nmoderator", "topic"
		var errs []error
		for _, c := range []struct{ field, want string }{
			{"text", "read text"}, {"normalized", "normalised read normalized"}, {"user", "märta"},
			{"room", "support-7"}, {"roles", "admin\nmoderator"}, {"kind", "topic"},
		} {
			in.Text = []byte("read " + c.field)
			in.Normalized = []byte("normalised " + string(in.Text))
			errs = append(errs, k.sayTo(k.plugin, in, abi.Flag, abi.Result{Code: uint16(len(c.want)), Reason: c.want}))
		}
		return errors.Join(errs...)
	}},
	{"the input may be as large as limits.input_bytes", func(k *kit) error {
		in := message("read user")
		in.Normalized = nil
		in.User = strings.Repeat("u", abi.MaxInput-abi.InputSize(in)+len(in.User))
		return k.sayTo(k.plugin, in, abi.Flag, abi.Result{Code: uint16(len(in.User)), Reason: strings.Repeat("u", abi.MaxReason)})
	}},
	{"the time is signed", func(k *kit) error {
		var errs []error
		for _, ms := range []int64{0, 1, 1_735_689_600_000, -1, -62_135_596_800_000, 1<<63 - 1} {
			in := message("time")
			in.TimeMS = ms
			errs = append(errs, k.sayTo(k.plugin, in, abi.Flag, abi.Result{Reason: fmt.Sprint(ms)}))
		}
		return errors.Join(errs...)
	}},
	{"signals are unsigned", func(k *kit) error {
		in := message("signals")
		in.Signals = abi.Signals{RecentPerMinute: 3, Repeats: 8, AccountAgeHours: 1<<32 - 1}
		return k.sayTo(k.plugin, in, abi.Flag, abi.Result{Reason: "3 8 4294967295"})
	}},
	{"a role is found whole, wherever it stands", func(k *kit) error {
		var errs []error
		for _, c := range []struct {
			roles, role string
			want        uint16
		}{
			{"", "admin", 0}, {"admin", "admin", 1}, {"admin\nmoderator\nowner", "moderator", 1},
			{"admin\nowner", "owner", 1}, {"admins", "admin", 0}, {"admin", "admins", 0}, {"a\nb", "a\nb", 0},
		} {
			in := message("role " + c.role)
			in.Roles = c.roles
			if c.role == "a\nb" {
				in.Text = []byte("role ab") // no role has a line break; neither have two together its name
			}
			errs = append(errs, k.sayTo(k.plugin, in, abi.Flag, abi.Result{Code: c.want}))
		}
		return errors.Join(errs...)
	}},
	{"fields the host does not send are empty", func(k *kit) error {
		var errs []error
		for n := range abi.NumFields {
			for f, field := range []string{"text", "normalized", "user", "room", "roles", "kind"} {
				in := message("read " + field)
				in.Roles = "admin"
				raw := abi.AppendInput(nil, in)
				binary.LittleEndian.PutUint32(raw[4:], uint32(n))
				want := answer{verdict: abi.Flag}
				switch {
				case n == 0: // not even a text that could ask for something
					want = answer{}
				case f < n:
					b, _ := abi.FieldBytes(raw, abi.Field(f))
					want.result = abi.Result{Code: uint16(len(b)), Reason: string(b)}
				}
				if got := askRaw(k.plugin, raw, in); got.String() != want.String() {
					errs = append(errs, fmt.Errorf("%d fields, %s: got %s, want %s", n, in.Text, got, want))
				}
			}
		}
		in := message("signals")
		raw := abi.AppendInput(nil, in)
		binary.LittleEndian.PutUint32(raw[4:], uint32(abi.FieldSignals))
		if got := askRaw(k.plugin, raw, in); got.err != nil || got.result.Reason != "0 0 0" {
			errs = append(errs, fmt.Errorf("no signals: got %s, want 0 0 0", got))
		}
		return errors.Join(errs...)
	}},
	{"fields and signals of later hosts are ignored", func(k *kit) error {
		var errs []error
		for _, text := range []string{"read kind", "signals", "flag 1 2 three"} {
			in := message(text)
			plain := ask(k.plugin, in)
			if got := askRaw(k.plugin, later(in), in); got.String() != plain.String() {
				errs = append(errs, fmt.Errorf("%s with 3 more fields and longer signals: got %s, want %s", text, got, plain))
			}
		}
		return errors.Join(errs...)
	}},
	{"fields may lie in any order and share their bytes", func(k *kit) error {
		in := message("read room")
		fields := [abi.NumFields][]byte{in.Text, in.Normalized, []byte("ann"), []byte("ann"), nil, []byte("message"), make([]byte, abi.SignalsSize)}
		raw := header(abi.NumFields)
		body := len(raw)
		for _, f := range []int{6, 5, 3, 1, 0} { // backwards; 2 is where 3 is
			put(raw, f, len(raw), len(fields[f]))
			raw = append(raw, fields[f]...)
		}
		copy(raw[abi.InputHeaderSize+2*abi.FieldEntrySize:], raw[abi.InputHeaderSize+3*abi.FieldEntrySize:][:abi.FieldEntrySize])
		put(raw, 4, body, 0)
		want := answer{verdict: abi.Flag, result: abi.Result{Code: 3, Reason: "ann"}}
		if got := askRaw(k.plugin, raw, in); got.String() != want.String() {
			return fmt.Errorf("got %s, want %s", got, want)
		}
		return nil
	}},
	{"a malformed input is not judged", func(k *kit) error {
		in := message("flag 1 2 three")
		good := abi.AppendInput(nil, in)
		change := func(at int, v uint32) []byte {
			b := slices.Clone(good)
			binary.LittleEndian.PutUint32(b[at:], v)
			return b
		}
		var errs []error
		for _, c := range []struct {
			name string
			raw  []byte
		}{
			{"nothing", nil},
			{"15 bytes", good[:15]},
			{"version 2", change(0, 2)},
			{"version 0", change(0, 0)},
			{"more fields than fit", change(4, uint32(len(good)))},
			{"4294967295 fields", change(4, 1<<32-1)},
			{"536870912 fields, whose table would have 2^32 bytes", change(4, 1<<29)},
			{"a text behind the end", change(16, uint32(len(good))+1)},
			{"a text that runs past the end", change(20, uint32(len(good)))},
			{"a length that wraps around", change(20, 1<<32-16)},
			{"an offset that wraps around", change(16, 1<<32-1)},
			{"signals that run past the end", change(16+6*8+4, 1000)},
		} {
			errs = append(errs, fails(k.plugin, c.name, c.raw, in, plugins.ErrAnswer))
		}
		return errors.Join(errs...)
	}},
}

// header returns an input's header and a field table for n fields.
func header(n int) []byte {
	raw := make([]byte, abi.InputHeaderSize+n*abi.FieldEntrySize)
	binary.LittleEndian.PutUint32(raw, abi.Version)
	binary.LittleEndian.PutUint32(raw[4:], uint32(n))
	return raw
}

// put fills in field f of the table.
func put(raw []byte, f, at, size int) {
	e := raw[abi.InputHeaderSize+f*abi.FieldEntrySize:]
	binary.LittleEndian.PutUint32(e, uint32(at))
	binary.LittleEndian.PutUint32(e[4:], uint32(size))
}

// later encodes in as a host to come might: three fields more, one of them
// empty, and signals of 20 bytes.
func later(in *abi.Input) []byte {
	le := binary.LittleEndian
	signals := le.AppendUint32(nil, in.Signals.RecentPerMinute)
	signals = le.AppendUint32(signals, in.Signals.Repeats)
	signals = le.AppendUint32(signals, in.Signals.AccountAgeHours)
	signals = append(signals, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4)
	fields := [][]byte{in.Text, in.Normalized, []byte(in.User), []byte(in.Room), []byte(in.Roles), []byte(in.Kind), signals,
		[]byte("de"), nil, []byte("\xff\xfe not even UTF-8")}
	raw := header(len(fields))
	for f, b := range fields {
		put(raw, f, len(raw), len(b))
		raw = append(raw, b...)
	}
	return raw
}
