package policy

import (
	"encoding/binary"

	"github.com/open-policy-agent/opa/v1/ast"

	"parley/core/gate"
)

// field is one scalar of gate.Input: the unit in which a policy's reading is
// known, projected and keyed.
type field uint8

// Every field of gate.Input, grouped as its documents are.
const (
	subjectType field = iota
	subjectID
	subjectRoles
	subjectNewAccount
	subjectRoomRole
	subjectBanned
	subjectMuted
	actionName
	actionRole
	actionChanges
	actionMode
	actionVisibility
	actionSlowModeS
	actionSeconds
	actionLift
	resourceType
	resourceID
	resourceExists
	resourceMode
	resourceVisibility
	resourceSlowModeS
	resourceDirect
	resourceTemplate
	targetType
	targetID
	targetSelf
	targetRoomRole
	targetBanned
	targetMuted
	contextTransport
	contextNetwork
	contextTextBytes
	contextSlowWaitS
	contextPeriods
	contextNetworks
	numFields
)

// fieldPaths names each field: the group and the name under input.
var fieldPaths = [numFields][2]string{
	subjectType:        {"subject", "type"},
	subjectID:          {"subject", "id"},
	subjectRoles:       {"subject", "roles"},
	subjectNewAccount:  {"subject", "new_account"},
	subjectRoomRole:    {"subject", "room_role"},
	subjectBanned:      {"subject", "banned"},
	subjectMuted:       {"subject", "muted"},
	actionName:         {"action", "name"},
	actionRole:         {"action", "role"},
	actionChanges:      {"action", "changes"},
	actionMode:         {"action", "mode"},
	actionVisibility:   {"action", "visibility"},
	actionSlowModeS:    {"action", "slow_mode_s"},
	actionSeconds:      {"action", "seconds"},
	actionLift:         {"action", "lift"},
	resourceType:       {"resource", "type"},
	resourceID:         {"resource", "id"},
	resourceExists:     {"resource", "exists"},
	resourceMode:       {"resource", "mode"},
	resourceVisibility: {"resource", "visibility"},
	resourceSlowModeS:  {"resource", "slow_mode_s"},
	resourceDirect:     {"resource", "direct"},
	resourceTemplate:   {"resource", "template"},
	targetType:         {"target", "type"},
	targetID:           {"target", "id"},
	targetSelf:         {"target", "self"},
	targetRoomRole:     {"target", "room_role"},
	targetBanned:       {"target", "banned"},
	targetMuted:        {"target", "muted"},
	contextTransport:   {"context", "transport"},
	contextNetwork:     {"context", "network"},
	contextTextBytes:   {"context", "text_bytes"},
	contextSlowWaitS:   {"context", "slow_wait_s"},
	contextPeriods:     {"context", "periods"},
	contextNetworks:    {"context", "networks"},
}

// String is the field as a policy writes it, without "input.".
func (f field) String() string { return fieldPaths[f][0] + "." + fieldPaths[f][1] }

// reading is the fields a policy can read, in ascending order.
type reading []field

// everything is every field there is.
var everything = func() (r reading) {
	for f := range numFields {
		r = append(r, f)
	}
	return r
}()

// value is what the policy sees of f.
func (f field) value(in *gate.Input) *ast.Term {
	switch v := f.of(in).(type) {
	case *string:
		return ast.StringTerm(*v)
	case *bool:
		return ast.InternedTerm(*v)
	case *int:
		return ast.InternedTerm(*v)
	case *[]string:
		items := make([]*ast.Term, len(*v))
		for i, s := range *v {
			items[i] = ast.StringTerm(s)
		}
		return ast.ArrayTerm(items...)
	}
	panic("policy: field " + f.String() + " has no value") // a new type without its case
}

// of returns a pointer to the field's value in the input, which is boxed
// without an allocation.
func (f field) of(in *gate.Input) any {
	switch f {
	case subjectType:
		return &in.Subject.Type
	case subjectID:
		return &in.Subject.ID
	case subjectRoles:
		return &in.Subject.Roles
	case subjectNewAccount:
		return &in.Subject.NewAccount
	case subjectRoomRole:
		return &in.Subject.RoomRole
	case subjectBanned:
		return &in.Subject.Banned
	case subjectMuted:
		return &in.Subject.Muted
	case actionName:
		return &in.Action.Name
	case actionRole:
		return &in.Action.Role
	case actionChanges:
		return &in.Action.Changes
	case actionMode:
		return &in.Action.Mode
	case actionVisibility:
		return &in.Action.Visibility
	case actionSlowModeS:
		return &in.Action.SlowModeS
	case actionSeconds:
		return &in.Action.Seconds
	case actionLift:
		return &in.Action.Lift
	case resourceType:
		return &in.Resource.Type
	case resourceID:
		return &in.Resource.ID
	case resourceExists:
		return &in.Resource.Exists
	case resourceMode:
		return &in.Resource.Mode
	case resourceVisibility:
		return &in.Resource.Visibility
	case resourceSlowModeS:
		return &in.Resource.SlowModeS
	case resourceDirect:
		return &in.Resource.Direct
	case resourceTemplate:
		return &in.Resource.Template
	case targetType:
		return &in.Target.Type
	case targetID:
		return &in.Target.ID
	case targetSelf:
		return &in.Target.Self
	case targetRoomRole:
		return &in.Target.RoomRole
	case targetBanned:
		return &in.Target.Banned
	case targetMuted:
		return &in.Target.Muted
	case contextTransport:
		return &in.Context.Transport
	case contextNetwork:
		return &in.Context.Network
	case contextTextBytes:
		return &in.Context.TextBytes
	case contextSlowWaitS:
		return &in.Context.SlowWaitS
	case contextPeriods:
		return &in.Context.Periods
	case contextNetworks:
		return &in.Context.Networks
	}
	panic("policy: field " + f.String() + " is nowhere in the input") // a new field without its case
}

// document builds the input document with the fields of r and no others,
// straight as OPA's own values.
func (r reading) document(in *gate.Input) *ast.Term {
	var groups [5][2]*ast.Term // as many as gate.Input has
	n := 0
	for i := 0; i < len(r); n++ {
		group := fieldPaths[r[i]][0]
		var pairs [numFields][2]*ast.Term
		k := 0
		for ; i < len(r) && fieldPaths[r[i]][0] == group; i++ {
			pairs[k] = [2]*ast.Term{ast.InternedTerm(fieldPaths[r[i]][1]), r[i].value(in)}
			k++
		}
		groups[n] = [2]*ast.Term{ast.InternedTerm(group), ast.ObjectTerm(pairs[:k]...)}
	}
	return ast.ObjectTerm(groups[:n]...)
}

// appendKey appends the exact values of r's fields to b: two inputs have equal
// keys if and only if every field of r is equal. Strings and lists are
// length-prefixed, so no value can run into the next.
func (r reading) appendKey(b []byte, in *gate.Input) []byte {
	for _, f := range r {
		switch v := f.of(in).(type) {
		case *string:
			b = appendString(b, *v)
		case *bool:
			b = appendBool(b, *v)
		case *int:
			b = binary.AppendVarint(b, int64(*v))
		case *[]string:
			b = binary.AppendUvarint(b, uint64(len(*v)))
			for _, s := range *v {
				b = appendString(b, s)
			}
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
