package main

import (
	"fmt"
	"math/bits"
	"slices"
)

// The functions of the search are small, and kept apart by go:noinline: the
// host charges a Go function's whole length for each jump in it, because the
// compiler turns every function with jumps into one loop around a switch.

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

// class says what a byte means to the edges of words.
type class uint8

const (
	inWord class = 1 << iota // part of a word: a letter, a digit
	keeps                    // belongs to the character before it
	begins                   // may begin a word of the list; set by build
)

// classes holds the class of each byte that is no sign. Beyond ASCII the first
// byte of a character tells: Latin, Greek, Cyrillic, Arabic, Indic and Thai
// letters make words; punctuation, emoji and scripts written without spaces
// end them.
var classes = func() (t [256]class) {
	for c := range t {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', 0xc3 <= c && c <= 0xe1:
			t[c] = inWord
		case 0x80 <= c && c <= 0xbf:
			t[c] = keeps
		}
	}
	t[0xcc], t[0xcd] = keeps, keeps // combining marks, U+0300 to U+036F
	return t
}()

// char reads the character at i: the letters it stands for, and where the next
// begins. Combining marks belong to the letter before them.
//
//go:noinline
func char(b []byte, i int) (l letters, next int) {
	if c := b[i]; c < 0x80 {
		l = ascii[c]
	} else if 0xc3 <= c && c <= 0xc5 && i+1 < len(b) {
		if base := latin[int(c-0xc3)<<6|int(b[i+1]&0x3f)]; base != '-' {
			l = 1 << (base - 'a')
		}
	}
	return l, after(b, i+1)
}

// after passes over the rest of a character and its combining marks.
func after(b []byte, i int) int {
	for i < len(b) && classes[b[i]]&keeps != 0 {
		i++
	}
	return i
}

// index holds the words as a tree: each node is a letter, its children the
// letters that follow it in some word.
type index struct {
	nodes   []node // nodes[0] is the root
	classes [256]class
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
			l, next := char([]byte(s), i)
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
	x.classes = classes
	for c, l := range ascii {
		if l&x.nodes[0].children != 0 {
			x.classes[c] |= begins
		}
	}
	for c := 0xc3; c <= 0xc5; c++ {
		x.classes[c] |= begins
	}
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
	m := match{index: x, text: b}
	for i := next(b, at, 0, &x.classes); i < len(b); i = next(b, i+1, x.classes[b[i]]&inWord, &x.classes) {
		m.start = i
		l, after := char(b, i)
		m.follow(&x.nodes[0], l, after, false, false)
		if m.end > 0 {
			return i, m.end
		}
	}
	return 0, 0
}

// next returns where the next word begins that may be in the list, the end of
// b if none does. within is inWord if i lies in a word.
//
//go:noinline
func next(b []byte, i int, within class, classes *[256]class) int {
	for ; i < len(b); i++ {
		c := classes[b[i]]
		if c&keeps != 0 {
			continue
		}
		if c&begins != 0 && within == 0 {
			return i
		}
		within = c & inWord
	}
	return i
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
//
//go:noinline
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
	end := again(m.text, i, n.letter, n.children)
	tight = tight || end > i
	if n.ends {
		m.finish(end, spaced, tight)
	}
	if n.children != 0 {
		l, after, sep := letter(m.text, end)
		m.follow(n, l, after, spaced || sep == white, tight || sep == nothing)
	}
}

// finish takes end as the word's end if it may be one.
//
//go:noinline
func (m *match) finish(end int, spaced, tight bool) {
	b := m.text
	if end > m.end && (end == len(b) || classes[b[end]]&inWord == 0) && (!spaced || !tight && alone(b, m.start, end)) {
		m.end = end
	}
}

// again passes over more of the same letter, unless it may be one of the next.
//
//go:noinline
func again(b []byte, i int, same, next letters) int {
	for i < len(b) && (b[i] >= 0x80 || ascii[b[i]]&same != 0) {
		l, after := char(b, i)
		if l&same == 0 || l&next != 0 {
			break
		}
		i = after
	}
	return i
}

// What may separate two letters of a word.
const (
	nothing = iota
	signs
	white
)

// letter passes over what separates two letters and reads the character after
// it. It stands for nothing where the text or the word ends.
//
//go:noinline
func letter(b []byte, i int) (l letters, after, sep int) {
	if i < len(b) && separates(b[i]) {
		i, sep = gap(b, i)
	}
	if i == len(b) {
		return 0, i, sep
	}
	l, after = char(b, i)
	return l, after, sep
}

// gap passes over characters that separate letters. After more than maxGap of
// them it returns the end of the text: what follows is another word.
//
//go:noinline
func gap(b []byte, i int) (after, sep int) {
	sep = signs
	for most := i + maxGap; i < len(b) && separates(b[i]); i++ {
		if i == most {
			return len(b), sep
		}
		if b[i] <= ' ' {
			sep = white
		}
	}
	return i, sep
}

// alone reports whether the spaced word b[start:end] is all there is of its
// row of single letters, but for the one-letter words and digits people write.
//
//go:noinline
func alone(b []byte, start, end int) bool {
	for i := start; ; { // backwards over single letters
		j := i - 1
		for j >= 0 && separates(b[j]) {
			j--
		}
		if j < 0 || i-1-j > maxGap || j > 0 && edge(b[j-1]) || !edge(b[j]) {
			break
		}
		if !oneLetterWord(b[j]) {
			return false
		}
		i = j
	}
	for i := end; ; { // and forwards
		j := i
		for j < len(b) && separates(b[j]) {
			j++
		}
		if j == len(b) || j-i > maxGap || j+1 < len(b) && edge(b[j+1]) || !edge(b[j]) {
			break
		}
		if !oneLetterWord(b[j]) {
			return false
		}
		i = j + 1
	}
	return true
}

// separates reports whether c may stand between the letters of a word.
func separates(c byte) bool { return c < 0x80 && ascii[c] == 0 }

// edge reports whether c is the first or last byte of a part of a word.
func edge(c byte) bool { return classes[c] != 0 }

func oneLetterWord(c byte) bool {
	return c == 'a' || c == 'i' || c == 'o' || c == 'u' || '0' <= c && c <= '9'
}
