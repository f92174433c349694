package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Matching a pattern is one step of an evaluation, and nothing stops it once it
// runs. A regular expression takes time by its size, spelt out, times the text;
// a glob tries every way to place its wildcards, so "*a*a*a*a*a*a*b*a" on 64
// letters takes 20 s (measured), and two more wildcards hours. So matching pays
// too, by an upper estimate of that work.

const (
	// maxPatternBytes bounds one pattern: compiling it takes time and memory
	// before anything is matched. Long lists of words belong in data.json.
	maxPatternBytes = 1000
	// maxMatching bounds the work of all matching of one evaluation, in places
	// tried: 15 ms of globs, 80 ms of regular expressions.
	maxMatching = 4 << 20
	// maxRepeats is what Go's regular expressions allow of one repetition.
	maxRepeats = 1000
)

var (
	errMatching = errors.New("matching its patterns takes too much work; use fewer wildcards and repetitions, or a list in data.json")
	errPattern  = fmt.Errorf("a pattern has more than %d bytes; put lists into data.json", maxPatternBytes)
)

// matching are the builtins that match, with where their pattern and their text
// stand among the operands.
var matching = map[string]struct {
	pattern, text int
	work          func(pattern string, text int) int
}{
	"regex.match":                      {0, 1, regexWork},
	"regex.is_valid":                   {0, 0, regexWork},
	"regex.find_n":                     {0, 1, regexWork},
	"regex.find_all_string_submatch_n": {0, 1, regexWork},
	"regex.split":                      {0, 1, regexWork},
	"regex.replace":                    {1, 0, regexWork},
	"regex.template_match":             {0, 1, regexWork},
	"glob.match":                       {0, 2, globWork},
}

// payForMatching goes after the prices of what is made: a builtin may have both.
func payForMatching() {
	for name, m := range matching {
		f := topdown.GetBuiltin(name) // with the price of what it makes, where it has one
		topdown.RegisterBuiltinFunc(name, func(bctx topdown.BuiltinContext, ops []*ast.Term, iter func(*ast.Term) error) error {
			pattern, whole := text(ops, m.pattern), len(text(ops, m.text))
			if len(pattern) > maxPatternBytes {
				return errPattern
			}
			spent, _ := bctx.Cache.Get(matched{})
			sum, _ := spent.(int)
			if sum += m.work(pattern, whole); sum > maxMatching {
				return errMatching
			}
			bctx.Cache.Put(matched{}, sum)
			return f(bctx, ops, iter)
		})
		ast.BuiltinMap[name].CanSkipBctx = false // the account is in it
	}
}

// matched is the key of the work so far in OPA's cache of one evaluation.
type matched struct{}

// regexWork is the size of the expression with its repetitions spelt out, times
// the places in the text.
func regexWork(pattern string, text int) int { return product(spelt(pattern), text+1) }

// spelt is how many characters and classes the expression has once its
// repetitions are written out. What is no expression gets some number: OPA
// refuses it.
func spelt(pattern string) int {
	total, last := []int{1}, 0 // of each open group, and of what a repetition would repeat
	for i := 0; i < len(pattern); i++ {
		top := len(total) - 1
		switch c := pattern[i]; {
		case c == '(':
			total, last = append(total, 1), 0
			continue
		case c == ')' && top > 0:
			last = total[top]
			total = total[:top]
			total[top-1] += last
			continue
		case c == '{':
			count, _, ok := strings.Cut(pattern[i+1:], "}")
			if most := largest(count); ok && most > 1 {
				total[top] += product(last, most-1)
				last = product(last, most)
			}
			if ok {
				i += len(count) + 1
			}
			if total[top] > maxMatching {
				return maxMatching + 1
			}
			continue
		case c == '[':
			end := strings.IndexByte(pattern[min(i+2, len(pattern)):], ']') // the first may be one of the class
			i = min(i+2+max(end, 0), len(pattern))
		case c == '\\':
			i++
		}
		last = 1
		total[top]++
	}
	sum := 0
	for _, n := range total {
		sum += n
	}
	return sum
}

// largest is the largest number of "3,10", up to the bound of repetitions.
func largest(count string) int {
	most := 0
	for n := range strings.SplitSeq(count, ",") {
		v, err := strconv.Atoi(n)
		if err == nil {
			most = max(most, min(v, maxRepeats))
		}
	}
	return most
}

// globWork is how many ways there are to place the wildcards in the text.
func globWork(pattern string, text int) int {
	wild := strings.Count(pattern, "*") - strings.Count(pattern, "**") + strings.Count(pattern, "{")
	ways := len(pattern) + text + 1
	for i := range wild {
		ways = product(ways, max(1, text-i))
		if ways > maxMatching {
			return ways
		}
		ways = ways/(i+1) + 1
	}
	return ways
}
