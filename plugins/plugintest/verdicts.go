package plugintest

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"parley/plugins"
	"parley/sdk/abi"
)

var verdictRules = []rule{
	{"allow is plain 0", func(k *kit) error {
		return errors.Join(k.say("good morning", abi.Allow, abi.Result{}), k.say("x", abi.Allow, abi.Result{}))
	}},
	{"flag, hold and deny carry code, score and reason", func(k *kit) error {
		var errs []error
		for _, v := range []abi.Verdict{abi.Flag, abi.Hold, abi.Deny} {
			errs = append(errs,
				k.say(v.String()+" 7 900 a reason, of words", v, abi.Result{Code: 7, Score: 900, Reason: "a reason, of words"}),
				k.say(v.String()+" 65535 1000 größer 😀", v, abi.Result{Code: 65535, Score: 1000, Reason: "größer 😀"}),
				k.say(v.String()+" 0 0", v, abi.Result{}))
		}
		return errors.Join(errs...)
	}},
	{"score above 1000 is 1000", func(k *kit) error {
		return errors.Join(
			k.say("flag 1 1001 sure", abi.Flag, abi.Result{Code: 1, Score: 1000, Reason: "sure"}),
			k.say("deny 1 60000 sure", abi.Deny, abi.Result{Code: 1, Score: 1000, Reason: "sure"}))
	}},
	{"reason of 256 bytes is whole, a longer one is cut between characters", func(k *kit) error {
		var errs []error
		for _, c := range []struct{ reason, want string }{
			{strings.Repeat("a", 256), strings.Repeat("a", 256)},
			{strings.Repeat("a", 257), strings.Repeat("a", 256)},
			{strings.Repeat("é", 400), strings.Repeat("é", 128)},
			{"x" + strings.Repeat("é", 400), "x" + strings.Repeat("é", 127)},
			{strings.Repeat("界", 200), strings.Repeat("界", 85)},
			{"x" + strings.Repeat("😀", 100), "x" + strings.Repeat("😀", 63)},
		} {
			errs = append(errs, k.say("deny 1 1 "+c.reason, abi.Deny, abi.Result{Code: 1, Score: 1, Reason: c.want}))
		}
		return errors.Join(errs...)
	}},
	{"reason that quotes half a character is UTF-8 all the same", func(k *kit) error {
		// "quote 00 00 é界😀é界😀": the cuts fall inside each of them.
		const head = "quote 00 00 "
		text := "é界😀é界😀"
		for start := len(head); start < len(head)+len(text); start++ {
			for end := start; end <= len(head)+len(text); end++ {
				got := ask(k.plugin, message(fmt.Sprintf("quote %02d %02d %s", start, end, text)))
				if got.err != nil || got.verdict != abi.Flag || !utf8.ValidString(got.result.Reason) {
					return fmt.Errorf("bytes %d to %d of the text as reason: got %s, want flag", start, end, got)
				}
			}
		}
		return nil
	}},
	{"a guest can say that it could not judge", func(k *kit) error {
		in := message("error")
		return fails(k.plugin, "error", abi.AppendInput(nil, in), in, plugins.ErrAnswer)
	}},
}

var spanRules = []rule{
	{"redact masks exactly its spans", func(k *kit) error {
		return errors.Join(
			k.redact("t0-6", abi.Span{Field: 0, Start: 0, Length: 6}),
			k.redact("n3-9", abi.Span{Field: 1, Start: 3, Length: 6}),
			k.redact("t1-2 t5-9 n0-1 n2-3", abi.Span{Field: 0, Start: 1, Length: 1}, abi.Span{Field: 0, Start: 5, Length: 4},
				abi.Span{Field: 1, Start: 0, Length: 1}, abi.Span{Field: 1, Start: 2, Length: 1}))
	}},
	{"redact reaches the last byte of both texts", func(k *kit) error {
		const text = "redact 3 500 t00-26 n00-37" // 26 bytes; normalised 11 more
		return k.say(text, abi.Redact, abi.Result{Code: 3, Score: 500, Reason: "masked",
			Spans: []abi.Span{{Field: 0, Start: 0, Length: 26}, {Field: 1, Start: 0, Length: 37}}})
	}},
	{"spans are sorted by field and start", func(k *kit) error {
		return k.redact("n8-9 t9-10 n1-2 t1-2 t5-6", abi.Span{Field: 0, Start: 1, Length: 1}, abi.Span{Field: 0, Start: 5, Length: 1},
			abi.Span{Field: 0, Start: 9, Length: 1}, abi.Span{Field: 1, Start: 1, Length: 1}, abi.Span{Field: 1, Start: 8, Length: 1})
	}},
	{"spans that overlap are joined", func(k *kit) error {
		return errors.Join(
			k.redact("t4-9 t1-5", abi.Span{Field: 0, Start: 1, Length: 8}),
			k.redact("t1-9 t3-4 n3-4 n3-4", abi.Span{Field: 0, Start: 1, Length: 8}, abi.Span{Field: 1, Start: 3, Length: 1}))
	}},
	{"empty spans are dropped, and redacting nothing is allow", func(k *kit) error {
		return errors.Join(
			k.redact("t3-3 t5-6", abi.Span{Field: 0, Start: 5, Length: 1}),
			k.say("redact 3 500", abi.Allow, abi.Result{}),
			k.say("redact 3 500 t3-3", abi.Allow, abi.Result{}))
	}},
	{"256 spans are given one by one", func(k *kit) error {
		got := ask(k.plugin, message("stripes 256 3 "+strings.Repeat("x", 800)))
		if got.err != nil || got.verdict != abi.Redact || len(got.result.Spans) != abi.MaxSpans {
			return fmt.Errorf("256 spans: got %s", got)
		}
		for i, s := range got.result.Spans {
			if s != (abi.Span{Field: abi.FieldText, Start: uint32(3 * i), Length: 1}) {
				return fmt.Errorf("256 spans: span %d is %v", i, s)
			}
		}
		return nil
	}},
	{"of more than 256 spans none is lost", func(k *kit) error {
		for _, n := range []int{257, 300, 400} {
			got := ask(k.plugin, message(fmt.Sprintf("stripes %d 3 %s", n, strings.Repeat("x", 3100))))
			if got.err != nil || got.verdict != abi.Redact {
				return fmt.Errorf("%d spans: got %s", n, got)
			}
			for i := range n {
				if !covered(got.result.Spans, uint32(3*i)) {
					return fmt.Errorf("%d spans: byte %d is not masked by %v", n, 3*i, got.result.Spans)
				}
			}
			if last := got.result.Spans[len(got.result.Spans)-1]; last.Start+last.Length != uint32(3*n-2) {
				return fmt.Errorf("%d spans: the last is %v, want it to end at %d", n, last, 3*n-2)
			}
		}
		return nil
	}},
}

// redact asks for spans of a text of known length and compares.
func (k *kit) redact(spans string, want ...abi.Span) error {
	return k.say("redact 3 500 "+spans, abi.Redact, abi.Result{Code: 3, Score: 500, Reason: "masked", Spans: want})
}

func covered(spans []abi.Span, at uint32) bool {
	for _, s := range spans {
		if s.Start <= at && at < s.Start+s.Length {
			return true
		}
	}
	return false
}
