package tuning

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// CPUSet is a set of CPUs or NUMA nodes by number, ascending.
type CPUSet []int

// maxCPUs bounds the numbers of a set; Linux supports 8192 CPUs on x86-64
// (CONFIG_MAXSMP).
const maxCPUs = 8192

// ParseCPUSet reads the kernel's list form, "0-3,8,10-11" (cpuset(7), "List
// format").
func ParseCPUSet(text string) (CPUSet, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	seen := make(map[int]bool)
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseUint(from, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || last < first || last >= maxCPUs {
			return nil, fmt.Errorf("CPU list: %.40q is neither a number nor a range below %d", part, maxCPUs)
		}
		for n := first; n <= last; n++ {
			seen[int(n)] = true
		}
	}
	set := make(CPUSet, 0, len(seen))
	for n := range seen {
		set = append(set, n)
	}
	slices.Sort(set)
	return set, nil
}

// String writes the set in the kernel's list form.
func (s CPUSet) String() string {
	var b strings.Builder
	for i := 0; i < len(s); {
		j := i
		for j+1 < len(s) && s[j+1] == s[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(s[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(s[j]))
		}
		i = j + 1
	}
	return b.String()
}

// MarshalText implements encoding.TextMarshaler.
func (s CPUSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// and returns the members of both sets.
func (s CPUSet) and(other CPUSet) (both CPUSet) {
	for _, n := range s {
		if _, ok := slices.BinarySearch(other, n); ok {
			both = append(both, n)
		}
	}
	return both
}
