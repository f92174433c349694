package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// valueKinds and kindOf say in words what encoding/json calls a value and what
// Go calls a type.
var valueKinds = strings.NewReplacer("array", "a list", "object", "an object", "string", "a string", "bool", "true or false", "number", "the number")

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "an object"
}

// keysOf returns the keys that an object of the type may have.
func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("json"))
	}
	return keys
}

// checkKeys finds a key that does not belong. encoding/json would take "Quiet"
// for "quiet", and the rules would not.
func checkKeys(v any, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case nil:
		return wrong("it is null; leave it out") // to the rules null would be a value
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			switch t.Kind() {
			case reflect.Map:
				if t.Elem().Kind() == reflect.Interface { // free
					return nil
				}
				if err := checkName(k); err != nil {
					return err
				}
				if err := checkKeys(v[k], t.Elem()); err != nil {
					return at(k, err)
				}
			case reflect.Struct:
				i := slices.Index(keysOf(t), k)
				if i < 0 {
					return wrong("it has the unknown key %q; it may have %s", clip(k, maxNameBytes), strings.Join(keysOf(t), ", "))
				}
				if err := checkKeys(v[k], t.Field(i).Type); err != nil {
					return at(k, err)
				}
			}
		}
	case []any:
		if t.Kind() == reflect.Slice {
			for i := range v {
				if err := checkKeys(v[i], t.Elem()); err != nil {
					return fmt.Errorf("[%d]%w", i, err)
				}
			}
		}
	}
	return nil
}

// checkName is about names that the data gives: they stand in the input.
func checkName(name string) error {
	ok := len(name) > 0 && len(name) <= maxNameBytes
	for i := 0; i < len(name) && ok; i++ {
		c := name[i]
		ok = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-'
	}
	if !ok {
		return wrong("the name %q is not 1 to %d of a-z, 0-9, - and _", clip(name, maxNameBytes), maxNameBytes)
	}
	return nil
}
