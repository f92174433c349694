package gate_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"parley/core/gate"
)

// TestNoneKnowsEveryObligation, so that none of them is missing from a record.
func TestNoneKnowsEveryObligation(t *testing.T) {
	if o := (gate.Obligations{}); !o.None() {
		t.Error("no obligation counts as one")
	}
	for i := range reflect.TypeFor[gate.Obligations]().NumField() {
		var o gate.Obligations
		f := reflect.ValueOf(&o).Elem().Field(i)
		if f.Kind() == reflect.Slice {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0)) // empty, and not absent
		} else {
			f.Set(reflect.New(f.Type().Elem()))
		}
		if o.None() {
			t.Errorf("%+v counts as no obligation", o)
		}
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var back gate.Obligations
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(o, back) {
			t.Errorf("through %s it became %+v, %v, want %+v", b, back, err, o)
		}
	}
}
