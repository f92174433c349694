package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. It is written as a plain number or with a unit
// of 1024: "64KiB", "4MiB", "1GiB".
type Size int64

// Auto asks the server to find the value itself; it is written "auto" and
// allowed only where a key says so.
const Auto Size = -1

var sizeUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	if s == Auto {
		return "auto"
	}
	for _, u := range sizeUnits {
		if u.size > 1 && s != 0 && int64(s)%u.size == 0 {
			return strconv.FormatInt(int64(s)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

var errNotSize = errors.New("not a size")

// ParseSize reads what String writes, "auto" excepted. Sizes are never
// negative and units are not case-sensitive.
func ParseSize(text string) (Size, error) {
	digits, unit := text, int64(1)
	for _, u := range sizeUnits {
		if cut := len(text) - len(u.name); cut > 0 && strings.EqualFold(text[cut:], u.name) {
			digits, unit = text[:cut], u.size
			break
		}
	}
	n, err := parseCount(digits)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, errNotSize
	}
	return Size(n * unit), nil
}

// parseCount reads a decimal integer, with '_' allowed between digits. A
// leading zero is refused, because YAML 1.1 would read such a number as octal.
func parseCount(text string) (int64, error) {
	abs := strings.TrimPrefix(text, "-")
	if abs == "" || abs[0] == '_' || abs[0] == '+' || (len(abs) > 1 && abs[0] == '0') {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
}
