package policy

import "github.com/open-policy-agent/opa/v1/ast"

// readingOf returns the fields of the input that the compiled rules can read.
// It may name too many, never too few: it looks at every rule of every module,
// reached or not, and where a reference to input goes on with anything but a
// constant (input[x], walk(input), f(input), input.subject[k]) it counts all
// that lies below the constant part.
//
// It must see modules after compilation: by then imports, local names and
// functions' arguments have been rewritten to plain references.
func readingOf(modules map[string]*ast.Module) reading {
	var seen [numFields]bool
	visit := func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Var:
			if v.Equal(ast.InputRootDocument.Value) {
				markBelow(&seen, nil)
			}
		case ast.Ref:
			if len(v) == 0 || !v[0].Equal(ast.InputRootDocument) {
				return false // walk on: an operand may refer to input
			}
			markBelow(&seen, v.ConstantPrefix()[1:])
			// The head is dealt with; look into dynamic operands only, as in
			// data.levels[input.subject.type] or input.subject[input.action.name].
			for _, operand := range v[1:] {
				ast.WalkTerms(operand, func(t *ast.Term) bool { return markRef(&seen, t) })
			}
			return true
		}
		return false
	}
	for _, m := range modules {
		ast.WalkTerms(m, visit)
	}
	var r reading
	for f := range numFields {
		if seen[f] {
			r = append(r, f)
		}
	}
	return r
}

// markRef marks what a reference nested in another reference's operand reads.
func markRef(seen *[numFields]bool, t *ast.Term) bool {
	if ref, ok := t.Value.(ast.Ref); ok && len(ref) > 0 && ref[0].Equal(ast.InputRootDocument) {
		// An operand's own operands could be dynamic again: count everything
		// below its constant part and let the walk go on into them.
		markBelow(seen, ref.ConstantPrefix()[1:])
	}
	return false
}

// markBelow marks every field that is at path, below it, or above it (a path
// that goes into a field, as input.subject.roles[0] does).
func markBelow(seen *[numFields]bool, path ast.Ref) {
	for f := range numFields {
		match := true
		for i, name := range fieldPaths[f] {
			if i < len(path) && path[i].Value.Compare(ast.String(name)) != 0 {
				match = false
			}
		}
		seen[f] = seen[f] || match
	}
}
