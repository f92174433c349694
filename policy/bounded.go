package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A step of an evaluation is one expression, and one expression can make a
// value ten times as large as its operands: nine lines of concat would be a
// gigabyte. So the builtins that copy or grow pay for what they make. The price
// is an upper estimate taken from the operands, because nothing can stop a
// builtin once it runs.

// maxMadeBytes bounds what the builtins of one evaluation, or of one test, make
// together. The default policy makes a few hundred bytes.
const maxMadeBytes = 16 << 20

// maxDigits bounds the digits and the exponent of a number that a builtin
// calculates with: 1e30000 has seven characters, and written out 30,001. OPA
// bounds what it reads, not what squaring makes of it.
const maxDigits = 1000

var (
	errMade   = fmt.Errorf("the policy makes more than %d bytes of values", maxMadeBytes)
	errDigits = fmt.Errorf("the policy calculates with a number of more than %d digits", maxDigits)
)

// estimate returns an upper bound of the bytes that a builtin makes of its
// operands, whatever their types: it runs before the builtin looks at them.
type estimate func(ops []*ast.Term) int

// growing are the builtins that pay. What is not named answers with a part of
// an operand, or with something of a fixed size.
var growing = map[string]estimate{
	"concat":            estimateConcat,
	"sprintf":           estimateSprintf,
	"replace":           estimateReplace,
	"strings.replace_n": estimateReplaceN,
	"regex.replace":     estimateRegexReplace,

	"split": pieces(0), "strings.split_n": pieces(0), "indexof_n": pieces(0),
	"regex.split": pieces(1), "regex.find_n": pieces(1), "regex.find_all_string_submatch_n": estimateSubmatches,

	"json.marshal": times(6), "internal.template_string": times(6), // six bytes for a control character
	"json.unmarshal": times(termBytes), "json.patch": times(2),
	"urlquery.encode": times(3), "urlquery.decode": times(1), "upper": times(3), "lower": times(3),
	"hex.encode": times(2), "hex.decode": times(1),
	"base64.encode": times(2), "base64url.encode": times(2), "base64url.encode_no_pad": times(2),
	"base64.decode": times(1), "base64url.decode": times(1), "strings.reverse": times(1),
	"object.union": times(1), "object.union_n": times(1), "union": times(1), "array.flatten": times(1),
	"json.filter": times(1), "json.remove": times(1),

	"array.concat": shallow, "array.slice": shallow, "array.reverse": shallow, "sort": shallow,
	"or": shallow, "and": shallow, "intersection": shallow,
	"minus": shallow, "object.keys": shallow, "object.filter": shallow, "object.remove": shallow,
}

// calculating are the builtins that write a number's digits out.
var calculating = []string{
	"plus", "minus", "mul", "div", "rem", "abs", "ceil", "floor", "round", "format_int",
	"bits.and", "bits.negate", "bits.or", "bits.rsh", "bits.xor",
}

// OPA's tables of builtins are the process's own, and this package the only one
// that uses them.
func init() {
	for name, price := range growing {
		topdown.RegisterBuiltinFunc(name, paying(topdown.GetBuiltin(name), price))
		ast.BuiltinMap[name].CanSkipBctx = false // the account is in it
	}
	for _, name := range calculating {
		topdown.RegisterBuiltinFunc(name, checking(topdown.GetBuiltin(name)))
	}
	payForMatching()
}

// account is the key of the bytes made so far in OPA's cache of one evaluation.
type account struct{}

// paying is f for whoever can pay.
func paying(f topdown.BuiltinFunc, price estimate) topdown.BuiltinFunc {
	return func(bctx topdown.BuiltinContext, ops []*ast.Term, iter func(*ast.Term) error) error {
		spent, _ := bctx.Cache.Get(account{})
		sum, _ := spent.(int)
		if sum += price(ops); sum > maxMadeBytes {
			return errMade
		}
		bctx.Cache.Put(account{}, sum)
		return f(bctx, ops, iter)
	}
}

// checking is f without numbers that are small to write and large to calculate
// with.
func checking(f topdown.BuiltinFunc) topdown.BuiltinFunc {
	return func(bctx topdown.BuiltinContext, ops []*ast.Term, iter func(*ast.Term) error) error {
		for _, op := range ops {
			if number, ok := op.Value.(ast.Number); ok && long(string(number)) {
				return errDigits
			}
		}
		return f(bctx, ops, iter)
	}
}

func long(number string) bool {
	if len(number) > maxDigits {
		return true
	}
	at := strings.LastIndexAny(number, "eE")
	if at < 0 {
		return false
	}
	e, err := strconv.Atoi(number[at+1:])
	return err != nil || max(e, -e) > maxDigits
}

// termBytes is what a value costs besides its text, roughly.
const termBytes = 64

// product multiplies and stays above the bound where it would overflow.
func product(a, b int) int {
	if b > 0 && a > maxMadeBytes/b {
		return maxMadeBytes + 1
	}
	return a * b
}

// deep adds to n what v holds, to its depth, and stops past the bound: values
// share their parts, so a small one can be endless when it is written out.
func deep(n int, v ast.Value) int {
	if n += termBytes; n > maxMadeBytes {
		return n
	}
	switch v := v.(type) {
	case ast.String:
		return n + len(v)
	case ast.Number:
		return n + len(v)
	case *ast.Array:
		v.Until(func(t *ast.Term) bool { n = deep(n, t.Value); return n > maxMadeBytes })
	case ast.Set:
		v.Until(func(t *ast.Term) bool { n = deep(n, t.Value); return n > maxMadeBytes })
	case ast.Object:
		v.Until(func(k, t *ast.Term) bool { n = deep(deep(n, k.Value), t.Value); return n > maxMadeBytes })
	}
	return n
}

func times(factor int) estimate {
	return func(ops []*ast.Term) int {
		n := 0
		for _, op := range ops {
			if s, ok := op.Value.(ast.String); ok {
				n += len(s)
			} else {
				n = deep(n, op.Value)
			}
		}
		return product(n, factor)
	}
}

// shallow pays for the elements of collections, not for what these hold.
func shallow(ops []*ast.Term) int {
	n := 0
	for _, op := range ops {
		if v, ok := op.Value.(interface{ Len() int }); ok {
			n += product(v.Len(), termBytes)
		}
	}
	return n
}

// pieces pays for a value for each byte of an operand.
func pieces(i int) estimate {
	return func(ops []*ast.Term) int { return product(len(text(ops, i)), termBytes) }
}

// text is an operand, "" if it is no string.
func text(ops []*ast.Term, i int) string {
	s, _ := ops[i].Value.(ast.String)
	return string(s)
}

func estimateConcat(ops []*ast.Term) int {
	n, delimiter := 0, len(text(ops, 0))
	add := func(t *ast.Term) bool {
		s, _ := t.Value.(ast.String)
		n += len(s) + delimiter
		return n > maxMadeBytes
	}
	switch v := ops[1].Value.(type) {
	case *ast.Array:
		v.Until(add)
	case ast.Set:
		v.Until(add)
	}
	return n
}

func estimateReplace(ops []*ast.Term) int {
	s := text(ops, 0)
	return len(s) + product(strings.Count(s, text(ops, 1)), len(text(ops, 2)))
}

func estimateReplaceN(ops []*ast.Term) int {
	s, longest := text(ops, 1), 0
	if patterns, ok := ops[0].Value.(ast.Object); ok {
		patterns.Until(func(_, t *ast.Term) bool {
			with, _ := t.Value.(ast.String)
			longest = max(longest, len(with))
			return false
		})
	}
	return len(s) + product(len(s)+1, longest)
}

// A replacement may name the match, "$0", once for every two of its bytes.
func estimateRegexReplace(ops []*ast.Term) int {
	s := text(ops, 0)
	return len(s) + product(len(s)+1, 2*len(text(ops, 2)))
}

func estimateSubmatches(ops []*ast.Term) int {
	return product(product(len(text(ops, 1)), termBytes), 1+strings.Count(text(ops, 0), "("))
}

// estimateSprintf reads the widths of the verbs. Each verb may show any of the
// values ("%[1]s"), written out in up to six bytes for one, and a float takes
// up to 400.
func estimateSprintf(ops []*ast.Term) int {
	format, longest, all := text(ops, 0), 0, 0
	if values, ok := ops[1].Value.(*ast.Array); ok {
		values.Until(func(t *ast.Term) bool {
			n := deep(0, t.Value)
			longest, all = max(longest, n), all+n
			return all > maxMadeBytes
		})
	}
	n := product(all, 6) + len(format) // values left over are shown too
	for _, verb := range strings.Split(format, "%")[1:] {
		end := strings.IndexFunc(verb, func(r rune) bool { return !strings.ContainsRune("+-# 0123456789.[]*", r) })
		if end < 0 {
			end = len(verb)
		}
		if n += product(longest, 6) + 400; n > maxMadeBytes {
			return n
		}
		for _, run := range strings.FieldsFunc(verb[:end], func(r rune) bool { return r < '0' || r > '9' }) {
			width, err := strconv.Atoi(run)
			if err != nil || width > maxMadeBytes {
				return maxMadeBytes + 1
			}
			n += width
		}
		n += product(strings.Count(verb[:end], "*"), 1_000_000) // the most that fmt takes from a value
	}
	return n
}
