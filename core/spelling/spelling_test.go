package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"", "listen", "limits.text_bytes", "log.level", "fuel"}
	tests := []struct{ name, text, want string }{
		{"the same", "listen", "listen"},
		{"other case", "LISTEN", "listen"},
		{"a letter more", "fuell", "fuel"},
		{"a letter less", "lisen", "listen"},
		{"two swapped", "feul", "fuel"},
		{"a word in the plural", "limits.texts_byte", "limits.text_bytes"},
		{"nothing alike", "colour", ""},
		{"empty", "", ""},
		{"endless", strings.Repeat("listen", 1000), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Nearest(tt.text, names); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNearestTakesTheFirstOfEquals(t *testing.T) {
	if got := Nearest("bar", []string{"baz", "car"}); got != "baz" {
		t.Errorf("got %q, want baz", got)
	}
}
