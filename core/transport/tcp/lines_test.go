package tcp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// split returns the lines of in and the error that ended them.
func split(in io.Reader, limit int) (lines_ []string, err error) {
	l := lines{r: bufio.NewReaderSize(in, 16), limit: limit}
	for {
		line, err := l.next()
		if err != nil {
			return lines_, err
		}
		lines_ = append(lines_, string(line))
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 100)
	tests := []struct {
		name  string
		in    string
		limit int
		want  string // lines, joined by |
		end   error
	}{
		{"two", "a\nb\n", 10, "a|b", io.EOF},
		{"CR LF", "a\r\nb\r\n", 10, "a|b", io.EOF},
		{"empty ones", "\n\r\na\n\n", 10, "||a|", io.EOF},
		{"the end in mid-line", "a\nhalf of a comm", 100, "a", io.EOF},
		{"nothing", "", 10, "", io.EOF},
		{"longer than the buffer", long + "\nb\n", 100, long + "|b", io.EOF},
		{"as long as allowed", "0123456789\n", 10, "0123456789", io.EOF},
		{"as long as allowed, CR LF", "0123456789\r\n", 10, "0123456789", io.EOF},
		{"one byte too long", "a\n01234567890\nb\n", 10, "a", errLong},
		{"one byte too long, CR LF", "01234567890\r\n", 10, "", errLong},
		{"far too long and without end", "a\n" + strings.Repeat("x", 1000), 100, "a", errLong},
		{"no limit", long + long + "\n", 0, long + long, io.EOF},
		{"after a long one a short one", long + "\nab\n" + long + "\n", 100, long + "|ab|" + long, io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for how, in := range map[string]io.Reader{
				"at once": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)),
			} {
				got, err := split(in, tt.limit)
				if s := strings.Join(got, "|"); s != tt.want || !errors.Is(err, tt.end) {
					t.Errorf("%s: got %q, %v, want %q, %v", how, s, err, tt.want, tt.end)
				}
			}
		})
	}
}

// FuzzLines compares the splitter with cutting the whole text at once.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\nb\n\n"), 10)
	f.Add([]byte(strings.Repeat("x", 40)+"\nrest"), 39)
	f.Add([]byte("\r\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		limit = max(0, limit%64)
		got, err := split(iotest.HalfReader(bytes.NewReader(in)), limit)
		whole := bytes.Split(in, []byte("\n"))
		whole = whole[:len(whole)-1]
		for i, line := range got {
			if i >= len(whole) || line != string(bytes.TrimRight(whole[i], "\r")) {
				t.Fatalf("line %d of %q: got %q", i, in, line)
			}
			if limit > 0 && len(line) > limit {
				t.Fatalf("line %d has %d bytes, %d are allowed", i, len(line), limit)
			}
		}
		switch {
		case errors.Is(err, io.EOF) && len(got) != len(whole):
			t.Fatalf("%q: got %d lines, want %d", in, len(got), len(whole))
		case errors.Is(err, errLong) && limit == 0:
			t.Fatal("too long without a limit")
		case !errors.Is(err, io.EOF) && !errors.Is(err, errLong):
			t.Fatal(err)
		}
	})
}
