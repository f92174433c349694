// Package spelling finds the name that somebody meant to type, for error
// messages. Its functions are pure and may be called from any goroutine.
package spelling

import "strings"

// maxText is the longest text, in bytes, that is compared: no name is that
// long, and the cost of a comparison is the product of the two lengths.
const maxText = 128

// Nearest returns the candidate that text was most likely meant to be, or ""
// when none is close: a third of its bytes may differ, at least two. Case does
// not count; of two that are equally close it is the first.
func Nearest(text string, candidates []string) string {
	if len(text) > maxText {
		return ""
	}
	best, bestDistance := "", max(2, len(text)/3)+1
	for _, c := range candidates {
		if c == "" {
			continue
		}
		if d := levenshtein(strings.ToLower(text), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// levenshtein counts the bytes to insert, delete or replace to get from a to b.
func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
