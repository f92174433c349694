package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// pureBuiltins are the builtins a policy may call: functions of their
// arguments alone, whose work is bounded by the size of their arguments. It is
// an allow-list, so a builtin that a later OPA adds is closed until somebody
// has looked at it.
//
// Left out on purpose, besides everything that sees a clock, the network,
// randomness or the process: bits.lsh (its result grows with the value of its
// argument; it ran 60 s past a deadline), numbers.range and
// graph.reachable_paths (the same), time.* (zone data differs between
// machines, and there is no clock to feed it), net.* (the input holds no
// address), yaml.* (aliases grow), graphql.* and io.jwt.* (large parsers with
// no use here), strings.render_template (a second language),
// json.match_schema (fetches references), rego.parse_module, uuid.*, trace.
//
// print is allowed and does nothing outside of tests: the compiler erases it.
var pureBuiltins = strings.Fields(`
	eq equal neq lt lte gt gte assign
	plus minus mul div rem abs ceil floor round
	count sum product max min sort
	and or intersection union
	array.concat array.flatten array.reverse array.slice
	is_array is_boolean is_null is_number is_object is_set is_string type_name
	to_number format_int
	concat contains endswith startswith indexof indexof_n lower upper replace split sprintf substring
	trim trim_left trim_prefix trim_right trim_space trim_suffix
	strings.any_prefix_match strings.any_suffix_match strings.count strings.replace_n strings.reverse strings.split_n
	regex.find_all_string_submatch_n regex.find_n regex.is_valid regex.match regex.replace regex.split regex.template_match
	glob.match glob.quote_meta
	object.filter object.get object.keys object.remove object.subset object.union object.union_n
	json.filter json.is_valid json.marshal json.patch json.remove json.unmarshal
	base64.decode base64.encode base64.is_valid base64url.decode base64url.encode base64url.encode_no_pad
	hex.decode hex.encode urlquery.decode urlquery.encode
	crypto.hmac.equal crypto.hmac.sha256 crypto.hmac.sha512 crypto.sha256
	bits.and bits.negate bits.or bits.rsh bits.xor
	semver.compare semver.is_valid units.parse units.parse_bytes
	graph.reachable walk
	rego.metadata.chain rego.metadata.rule
	print internal.print internal.member_2 internal.member_3 internal.template_string internal.test_case
`)

// capabilities is the language without the impure builtins and without hosts.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		return !slices.Contains(pureBuiltins, b.Name)
	})
	c.AllowNet = []string{}
	return c
}

// explainBuiltin adds to the compiler's "undefined function X" why a builtin
// that OPA has is not there.
func explainBuiltin(message string) string {
	name, ok := strings.CutPrefix(message, "undefined function ")
	if !ok {
		return message
	}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		if b.Name == name {
			return "the builtin " + name + " is forbidden: a decision may depend on its input and its commit alone, so builtins that see a clock, the network, randomness or the process, or whose work has no bound, are closed (docs/policy.md, Purity)"
		}
	}
	return message
}
