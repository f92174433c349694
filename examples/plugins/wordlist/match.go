package main

import (
	"fmt"
	"math/bits"
	"slices"
)

// letters is a set of the letters a to z, bit 0 for a. A character stands for
// each letter of its set.
type letters uint32

func set(s string) (l letters) {
	for i := range len(s) {
		l |= 1 << (s[i] - 'a')
	}
	return l
}

// ascii says which letters an ASCII character stands for.
var ascii = func() (t [128]letters) {
	for c := 'a'; c <= 'z'; c++ {
		t[c] = 1 << (c - 'a')
		t[c-'a'+'A'] = t[c]
	}
	for c, s := range map[byte]string{
		'0': "o", '1': "il", '2': "z", '3': "e", '4': "a", '5': "s", '6': "bg", '7': "t", '8': "b", '9': "g",
		'@': "a", '$': "s", '!': "i", '|': "il", '+': "t", '(': "c", '<': "c",
	} {
		t[c] = set(s)
	}
	return t
}()

// latin holds the base letters of U+00C0 to U+017F, '-' where there is none.
// The host's text is in lower case, so the capitals matter to words only.
const latin = "aaaaaaaceeeeiiiidnooooo-ouuuuy--aaaaaaaceeeeiiiidnooooo-ouuuuy-y" +
	"aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiiiijjkkkllllllllllnnnnnnnnnoooooooorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs"

// char reads the character at i: the letters it stands for, whether it is part
// of a word, and where the next begins. Combining marks belong to the letter
// before them.
func char(b []byte, i int) (l letters, word bool, next int) {
	c := b[i]
	if c < 0x80 {
		word = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z'
		return ascii[c], word, marks(b, i+1)
	}
	next = i + 1
	for next < len(b) && b[next]&0xc0 == 0x80 {
		next++
	}
	if 0xc3 <= c && c <= 0xc5 && next == i+2 {
		if base := latin[int(c-0xc3)<<6|int(b[i+1]&0x3f)]; base != '-' {
			l = 1 << (base - 'a')
		}
	}
	// General punctuation, symbols, ideographic punctuation and emoji end a word.
	word = c != 0xe2 && c != 0xf0 && !(c == 0xe3 && b[i+1] == 0x80) && !(c == 0xc2)
	return l, word, marks(b, next)
}

// marks passes over combining marks, U+0300 to U+036F.
func marks(b []byte, i int) int {
	for i+1 < len(b) && (b[i] == 0xcc || b[i] == 0xcd && b[i+1] < 0xb0) {
		i += 2
	}
	return i
}

// index holds the words as a tree: each node is a letter, its children the
// letters that follow it in some word.
type index struct {
	nodes []node // nodes[0] is the root
}

type node struct {
	children letters // in nodes[first:], in order of the alphabet
	first    uint32
	letter   letters // one bit; none for the root
	ends     bool    // a word ends here
}

const (
	maxWords   = 10_000
	minLetters = 2
	maxLetters = 64
)

// build makes the index of a list of words.
func (x *index) build(list []string) error {
	if len(list) == 0 || len(list) > maxWords {
		return fmt.Errorf("wordlist: config: %d words, 1 to %d are allowed", len(list), maxWords)
	}
	words := make([][]letters, len(list))
	for k, s := range list {
		for i := 0; i < len(s); {
			l, _, next := char([]byte(s), i)
			if bits.OnesCount32(uint32(l)) != 1 {
				return fmt.Errorf("wordlist: config: %q holds something else than Latin letters", s)
			}
			words[k] = append(words[k], l)
			i = next
		}
		if n := len(words[k]); n < minLetters || n > maxLetters {
			return fmt.Errorf("wordlist: config: %q has %d letters, %d to %d are allowed", s, n, minLetters, maxLetters)
		}
	}
	slices.SortFunc(words, slices.Compare)
	x.nodes = []node{{}}
	x.grow(0, words, 0)
	return nil
}

// grow adds the nodes below at, for words that share their first depth
// letters.
func (x *index) grow(at int, words [][]letters, depth int) {
	for len(words) > 0 && len(words[0]) == depth { // shorter sorts first; a list may repeat itself
		x.nodes[at].ends = true
		words = words[1:]
	}
	first := len(x.nodes)
	x.nodes[at].first = uint32(first)
	for i, w := range words {
		if l := w[depth]; i == 0 || l != words[i-1][depth] {
			x.nodes[at].children |= l
			x.nodes = append(x.nodes, node{letter: l})
		}
	}
	for child := first; len(words) > 0; child++ {
		n := 0
		for n < len(words) && words[n][depth] == words[0][depth] {
			n++
		}
		x.grow(child, words[:n], depth+1)
		words = words[n:]
	}
}

// find returns the first whole word of the list at or after at, the longest of
// those that begin there; end is 0 when there is none. at is 0 or where a
// match ended.
func (x *index) find(b []byte, at int) (start, end int) {
	inWord := false
	for i := at; i < len(b); {
		l, part, next := char(b, i)
		if !inWord && len(x.nodes) > 0 {
			m := match{index: x, text: b, start: i}
			m.follow(&x.nodes[0], l, next, false, false)
			if m.end > 0 {
				return i, m.end
			}
		}
		inWord = part
		i = next
	}
	return 0, 0
}

// maxGap bounds the characters between two letters of one word.
const maxGap = 3

// match is a search for the longest word that begins at start. Letters may be
// repeated ("heeeck") and separated by signs ("h.eck"). Once white space
// separates two ("h e c k"), every letter must stand alone, and so must the
// word among letters that stand alone: "c l a s s" is class.
type match struct {
	index *index
	text  []byte
	start int
	end   int // of the longest word so far, 0 for none
}

// follow goes on to the children of n that a character stands for; i is where
// the next begins. A character stands for two letters at most, so there are
// never more steps than nodes below the first letter.
func (m *match) follow(n *node, l letters, i int, spaced, tight bool) {
	for l &= n.children; l != 0; l &= l - 1 {
		before := n.children & (l&-l - 1) // the children that precede this one
		m.reach(&m.index.nodes[int(n.first)+bits.OnesCount32(uint32(before))], i, spaced, tight)
	}
}

// reach continues after the letter of n was read; the text goes on at i.
// spaced says that white space has separated two letters, tight that two were
// not separated at all.
func (m *match) reach(n *node, i int, spaced, tight bool) {
	b := m.text
	for i < len(b) { // more of the same, unless it may be the next letter
		l, _, next := char(b, i)
		if l&n.letter == 0 || l&n.children != 0 {
			break
		}
		i, tight = next, true
	}
	if n.ends && i > m.end && boundary(b, i) && (!spaced || !tight && alone(b, m.start, i)) {
		m.end = i
	}
	at, space := gap(b, i)
	if n.children == 0 || at < 0 || at == len(b) {
		return
	}
	l, _, next := char(b, at)
	m.follow(n, l, next, spaced || space, tight || at == i)
}

// gap passes over what may separate two letters: ASCII characters that are no
// letters, digits or stand-ins. It reports white space among them, and -1 for
// more than maxGap of them.
func gap(b []byte, i int) (next int, space bool) {
	for n := 0; i < len(b) && b[i] < 0x80 && ascii[b[i]] == 0; n++ {
		if n == maxGap {
			return -1, false
		}
		space = space || b[i] <= ' '
		i++
	}
	return i, space
}

// boundary reports whether a word may end at i: what follows is no part of it.
func boundary(b []byte, i int) bool {
	if i == len(b) {
		return true
	}
	_, part, _ := char(b, i)
	return !part
}

// alone reports whether the spaced word b[start:end] is all there is of its
// row of single letters, but for the one-letter words people write.
func alone(b []byte, start, end int) bool {
	for i := start; ; { // backwards over single letters
		j := i - 1
		for j >= 0 && b[j] < 0x80 && ascii[b[j]] == 0 {
			j--
		}
		if j < 0 || i-1-j > maxGap || j > 0 && partOfWord(b, j-1) || !partOfWord(b, j) {
			break
		}
		if !oneLetterWord(b[j]) {
			return false
		}
		i = j
	}
	for i := end; ; { // and forwards
		j := i
		for j < len(b) && b[j] < 0x80 && ascii[b[j]] == 0 {
			j++
		}
		if j == len(b) || j-i > maxGap || j+1 < len(b) && partOfWord(b, j+1) || !partOfWord(b, j) {
			break
		}
		if !oneLetterWord(b[j]) {
			return false
		}
		i = j + 1
	}
	return true
}

// partOfWord reports whether the byte at i belongs to a word.
func partOfWord(b []byte, i int) bool {
	c := b[i]
	return c >= 0x80 || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z'
}

func oneLetterWord(c byte) bool { return c == 'a' || c == 'i' || c == 'o' || c == 'u' }
