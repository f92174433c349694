package redistest

import (
	"bufio"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	tests := []struct {
		name, in, want string
		bad            bool
	}{
		{"status", "+OK\r\n", "OK", false},
		{"number", ":-3\r\n", "-3", false},
		{"string", "$2\r\nhi\r\n", "hi", false},
		{"nil", "$-1\r\n", "", false},
		{"list", "*2\r\n:1\r\n$1\r\nx\r\n", "1\nx", false},
		{"error", "-ERR no\r\n", "", true},
		{"nothing", "", "", true},
		{"empty line", "\r\n", "", true},
		{"no number", "$x\r\n", "", true},
		{"short string", "$5\r\nhi\r\n", "", true},
		{"short list", "*2\r\n:1\r\n", "", true},
		{"unknown type", "!1\r\n", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readReply(bufio.NewReader(strings.NewReader(tt.in)))
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("got %q, %v, want %q, an error %v", got, err, tt.want, tt.bad)
			}
		})
	}
}
