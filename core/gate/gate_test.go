package gate_test

import (
	"encoding/json"
	"net/netip"
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

func TestNetworkOf(t *testing.T) {
	for ip, want := range map[string]string{
		"127.0.0.1": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback", "10.1.2.3": "private", "fd00::1": "private",
		"fe80::1": "private", "169.254.1.1": "private", "192.0.2.1": "public", "2001:db8::1": "public",
	} {
		if got := gate.NetworkOf(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: got %s, want %s", ip, got, want)
		}
	}
	if got := gate.NetworkOf(netip.Addr{}); got != "public" {
		t.Errorf("no address: got %s, want public, which is trusted least", got)
	}
}
