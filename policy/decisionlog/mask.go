package decisionlog

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"parley/core/gate"
)

// inputFields is every field of gate.Input by its name in a policy:
// "subject.id" to the index path of the field.
var inputFields = func() map[string][]int {
	out := map[string][]int{}
	root := reflect.TypeFor[gate.Input]()
	for i := range root.NumField() {
		group := root.Field(i)
		name, _, _ := strings.Cut(group.Tag.Get("json"), ",")
		if group.Type.Kind() != reflect.Struct || name == "-" || name == "" {
			continue
		}
		for j := range group.Type.NumField() {
			leaf, _, _ := strings.Cut(group.Type.Field(j).Tag.Get("json"), ",")
			out[name+"."+leaf] = []int{i, j}
		}
	}
	return out
}()

// checkMask names the first field that no input has.
func checkMask(fields []string) error {
	for _, f := range fields {
		if _, ok := inputFields[f]; !ok {
			return fmt.Errorf("policy.log.mask: an input has no field %q; docs/policy.md lists them", f)
		}
		if f == "action.name" {
			return fmt.Errorf("policy.log.mask: action.name cannot be masked: a record without it says nothing")
		}
	}
	return nil
}

// Mask is what is left out of the records of one policy. The zero Mask leaves
// nothing out. It is immutable.
type Mask struct {
	fields []string
	beyond bool // one of them is read by the policy
}

// Mask returns the mask for a policy that reads those fields.
func (l *Log) Mask(reads []string) Mask {
	var m Mask
	for _, f := range l.cfg.Mask {
		read := looksAt(reads, f)
		if read && !l.cfg.MaskRead {
			continue
		}
		m.fields = append(m.fields, f)
		m.beyond = m.beyond || read
	}
	slices.Sort(m.fields)
	return m
}

// masked returns a copy of in without the masked fields.
func (m Mask) masked(in *gate.Input) *gate.Input {
	out := *in
	out.Message, out.Raw = "", gate.Raw{} // the record names the one; nobody keeps the other
	v := reflect.ValueOf(&out).Elem()
	for _, f := range m.fields {
		v.FieldByIndex(inputFields[f]).SetZero()
	}
	fill(&out)
	return &out
}

// Hides reports whether r lacks a field that a policy which reads those fields
// would look at, so that its answer to r would mean nothing.
func (r *Record) Hides(reads []string) bool {
	return slices.ContainsFunc(r.Masked, func(f string) bool { return looksAt(reads, f) })
}

// looksAt reports whether a policy that reads those fields needs field to answer:
// a template is found by the room's name.
func looksAt(reads []string, field string) bool {
	return slices.Contains(reads, field) || field == "resource.id" && slices.Contains(reads, "resource.template")
}
