package jobs

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Needle is a text to look for without regard to case, with the comparison of
// [strings.EqualFold]. Its zero value is in every text.
type Needle struct {
	runes []rune // folded
	// ascii is the needle in lower case if it is pure ASCII, else "".
	ascii string
	// rare is the index in ascii of its rarest letter.
	rare int
	// alone says that every rune of ascii folds to ASCII only. The letters k and s do
	// not: U+212A is a k, U+017F is an s.
	alone bool
}

// NewNeedle prepares a text for searches in many others.
func NewNeedle(text string) Needle {
	n := Needle{runes: make([]rune, 0, len(text)), ascii: strings.ToLower(text), alone: true}
	for _, r := range text {
		n.runes = append(n.runes, foldRune(r))
		switch {
		case r >= utf8.RuneSelf:
			n.ascii = ""
		case strings.ContainsRune("kKsS", r):
			n.alone = false
		}
	}
	for i := range len(n.ascii) {
		if commonness(n.ascii[i]) < commonness(n.ascii[n.rare]) {
			n.rare = i
		}
	}
	return n
}

// commonness grows with the frequency of a byte in JSON and error messages, by rule of
// thumb.
func commonness(c byte) int {
	const rarestFirst = `zqjxkvwybgfpm_-.ucdlh,:srnioat"e `
	return strings.IndexByte(rarestFirst, c) // any other byte is rare
}

// In says whether the needle is in text.
func (n *Needle) In(text []byte) bool {
	switch {
	case len(n.runes) == 0:
		return true
	case n.ascii != "" && n.inBytes(text):
		return true
	case n.ascii != "" && (n.alone || allASCII(text)):
		return false
	}
	for len(text) > 0 {
		if c := text[0]; c < utf8.RuneSelf && rune(upperByte(c)) != n.runes[0] {
			text = text[1:]
			continue
		}
		if n.leads(text) {
			return true
		}
		_, size := utf8.DecodeRune(text)
		text = text[size:]
	}
	return false
}

// inBytes looks for a needle of ASCII byte by byte, around each occurrence of its
// rarest letter in either case.
func (n *Needle) inBytes(text []byte) bool {
	lower := n.ascii[n.rare]
	upper := upperByte(lower)
	nextLower, nextUpper := indexFrom(text, lower, n.rare), -1
	if upper != lower {
		nextUpper = indexFrom(text, upper, n.rare)
	}
	for nextLower >= 0 || nextUpper >= 0 {
		at := nextLower
		if at < 0 || nextUpper >= 0 && nextUpper < at {
			at = nextUpper
			nextUpper = indexFrom(text, upper, at+1)
		} else {
			nextLower = indexFrom(text, lower, at+1)
		}
		from := at - n.rare
		if len(text)-from < len(n.ascii) {
			return false
		}
		if n.leadsBytes(text[from:]) {
			return true
		}
	}
	return false
}

// leadsBytes says whether text, which is long enough, begins with the needle.
func (n *Needle) leadsBytes(text []byte) bool {
	for i := range len(n.ascii) {
		if c := text[i]; c != n.ascii[i] && c != upperByte(n.ascii[i]) {
			return false
		}
	}
	return true
}

// leads says whether text begins with the needle, rune by rune.
func (n *Needle) leads(text []byte) bool {
	for _, want := range n.runes {
		if len(text) == 0 {
			return false
		}
		r, size := utf8.DecodeRune(text)
		if foldRune(r) != want {
			return false
		}
		text = text[size:]
	}
	return true
}

// indexFrom is the next index of c in text, from an index on; -1 = none.
func indexFrom(text []byte, c byte, from int) int {
	if from >= len(text) {
		return -1
	}
	if i := bytes.IndexByte(text[from:], c); i >= 0 {
		return from + i
	}
	return -1
}

func upperByte(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - ('a' - 'A')
	}
	return c
}

// foldRune is the least of the runes that differ from r only in case.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		return rune(upperByte(byte(r)))
	}
	least := r
	for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
		least = min(least, o)
	}
	return least
}

func allASCII(text []byte) bool {
	const high = 0x8080808080808080
	for ; len(text) >= 8; text = text[8:] {
		if binary.LittleEndian.Uint64(text)&high != 0 {
			return false
		}
	}
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
