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
	subjectRoomRole
	subjectBanned
	subjectMuted
	actionName
	resourceType
	resourceID
	resourceExists
	resourceMode
	resourceVisibility
	resourceSlowModeS
	contextTransport
	contextNetwork
	contextTextBytes
	contextSlowWaitS
	numFields
)

// fieldPaths names each field: the group and the name under input.
var fieldPaths = [numFields][2]string{
	subjectType:        {"subject", "type"},
	subjectID:          {"subject", "id"},
	subjectRoles:       {"subject", "roles"},
	subjectRoomRole:    {"subject", "room_role"},
	subjectBanned:      {"subject", "banned"},
	subjectMuted:       {"subject", "muted"},
	actionName:         {"action", "name"},
	resourceType:       {"resource", "type"},
	resourceID:         {"resource", "id"},
	resourceExists:     {"resource", "exists"},
	resourceMode:       {"resource", "mode"},
	resourceVisibility: {"resource", "visibility"},
	resourceSlowModeS:  {"resource", "slow_mode_s"},
	contextTransport:   {"context", "transport"},
	contextNetwork:     {"context", "network"},
	contextTextBytes:   {"context", "text_bytes"},
	contextSlowWaitS:   {"context", "slow_wait_s"},
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
	switch f {
	case subjectType:
		return ast.StringTerm(in.Subject.Type)
	case subjectID:
		return ast.StringTerm(in.Subject.ID)
	case subjectRoles:
		roles := make([]*ast.Term, len(in.Subject.Roles))
		for i, r := range in.Subject.Roles {
			roles[i] = ast.StringTerm(r)
		}
		return ast.ArrayTerm(roles...)
	case subjectRoomRole:
		return ast.StringTerm(in.Subject.RoomRole)
	case subjectBanned:
		return ast.InternedTerm(in.Subject.Banned)
	case subjectMuted:
		return ast.InternedTerm(in.Subject.Muted)
	case actionName:
		return ast.StringTerm(in.Action.Name)
	case resourceType:
		return ast.StringTerm(in.Resource.Type)
	case resourceID:
		return ast.StringTerm(in.Resource.ID)
	case resourceExists:
		return ast.InternedTerm(in.Resource.Exists)
	case resourceMode:
		return ast.StringTerm(in.Resource.Mode)
	case resourceVisibility:
		return ast.StringTerm(in.Resource.Visibility)
	case resourceSlowModeS:
		return ast.InternedTerm(in.Resource.SlowModeS)
	case contextTransport:
		return ast.StringTerm(in.Context.Transport)
	case contextNetwork:
		return ast.StringTerm(in.Context.Network)
	case contextTextBytes:
		return ast.InternedTerm(in.Context.TextBytes)
	case contextSlowWaitS:
		return ast.InternedTerm(in.Context.SlowWaitS)
	}
	panic("policy: field " + f.String() + " has no value") // a new field without its case
}

// document builds the input document with the fields of r and no others,
// straight as OPA's own values.
func (r reading) document(in *gate.Input) *ast.Term {
	var groups [4][2]*ast.Term // as many as gate.Input has
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
		switch f {
		case subjectType:
			b = appendString(b, in.Subject.Type)
		case subjectID:
			b = appendString(b, in.Subject.ID)
		case subjectRoles:
			b = binary.AppendUvarint(b, uint64(len(in.Subject.Roles)))
			for _, role := range in.Subject.Roles {
				b = appendString(b, role)
			}
		case subjectRoomRole:
			b = appendString(b, in.Subject.RoomRole)
		case subjectBanned:
			b = appendBool(b, in.Subject.Banned)
		case subjectMuted:
			b = appendBool(b, in.Subject.Muted)
		case actionName:
			b = appendString(b, in.Action.Name)
		case resourceType:
			b = appendString(b, in.Resource.Type)
		case resourceID:
			b = appendString(b, in.Resource.ID)
		case resourceExists:
			b = appendBool(b, in.Resource.Exists)
		case resourceMode:
			b = appendString(b, in.Resource.Mode)
		case resourceVisibility:
			b = appendString(b, in.Resource.Visibility)
		case resourceSlowModeS:
			b = binary.AppendVarint(b, int64(in.Resource.SlowModeS))
		case contextTransport:
			b = appendString(b, in.Context.Transport)
		case contextNetwork:
			b = appendString(b, in.Context.Network)
		case contextTextBytes:
			b = binary.AppendVarint(b, int64(in.Context.TextBytes))
		case contextSlowWaitS:
			b = binary.AppendVarint(b, int64(in.Context.SlowWaitS))
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
