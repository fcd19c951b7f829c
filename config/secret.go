package config

import (
	"fmt"
	"math"
	"strings"
	"unicode"
)

const (
	minSecretChars = 32
	minSecretBits  = 96
)

// secretWeakness says what is wrong with a JWT secret; empty: nothing. It never quotes the secret.
//
// An HS256 secret can be guessed offline from a single token, at any speed, so its length says little: the estimate of
// [estimateSecret] must reach 96 bits. 32 random hex digits have 128.
func secretWeakness(secret string) string {
	text := []rune(secret)
	if len(text) < minSecretChars {
		return fmt.Sprintf("has %d characters, fewer than %d", len(text), minSecretChars)
	}
	bits, words := estimateSecret(text)
	switch {
	case bits >= minSecretBits:
		return ""
	case words*3 >= len(text):
		return "is a placeholder, or made of words that anybody would try"
	}
	return fmt.Sprintf("can be guessed: by Parley's estimate it is worth %.0f bits of %d", bits, minSecretBits)
}

// The prices of what the estimate finds in a secret.
const (
	wordLikeBits  = 2 // a letter of something that reads like a word; seven make 14 bits, a diceware word has 12.9
	separatorBits = 1
	sequenceBits  = 10
	repeatBits    = 10
)

// The lengths from which on a part counts as what it looks like; random text has shorter ones by chance.
const (
	minWordLike      = 5
	minWordLikeAlone = 3 // for what stands between separators, or is set off by a capital
	minKnownWord     = 4 // likewise, a shorter one counts only where it stands alone
	minLeetWord      = 6
	minSequence      = 4
	minStutter       = 6 // a sequence that repeats characters: aabbcc, aaaaaa
	minInterleaved   = 8 // two sequences that take turns: a1b2c3d4
	minRepeat        = 4
)

// estimateSecret estimates what it takes to guess a secret: the price in bits of its cheapest description as a row of
// parts. What the secret holds besides the cheap parts must carry it, so a placeholder with random text behind it is
// as good as that text, and random text that happens to spell a word loses little. The parts are:
//
//   - a word of the list in secretwords.go, with or without leetspeak: free;
//   - a separator, such as - or _: 1 bit;
//   - letters of which each pair of neighbours is usual in English: 2 bits each, unless the secret is all hex digits;
//   - a sequence of the alphabet, the digits or the keyboard, also backwards, with repeated characters, or two taking
//     turns: 10 bits;
//   - a repetition of four or more characters that came before: 10 bits;
//   - any other character: log2 of the size of the alphabet that the secret is written in. That is 10 for digits, 16
//     for hex digits, else the sum of 10 for digits, 26 for each case of letters, 33 for punctuation and 100 for the
//     rest of Unicode; but no more than the number of different characters where these are fewer than 8.
//
// Of a million random secrets of 32 hex digits it puts none below 96 bits. It looks at the first 256 characters. words
// is how many of them the free words have.
func estimateSecret(text []rune) (bits float64, words int) {
	text = text[:min(len(text), 256)]
	size, hex := alphabet(text)
	literal, rows := math.Log2(float64(size)), places(text)

	type state struct {
		bits  float64
		words int
	}
	best := make([]state, len(text)+1) // best[i] is for the first i characters
	for i := range best[1:] {
		best[i+1].bits = math.Inf(1)
	}
	for i, r := range text {
		step := func(length int, bits float64, words int) {
			if to := &best[i+length]; best[i].bits+bits < to.bits {
				*to = state{best[i].bits + bits, best[i].words + words}
			}
		}
		step(1, literal, 0)
		if isSeparator(r) {
			step(1, separatorBits, 0)
		}
		for _, w := range knownWords[unicode.ToLower(r)] {
			if spells(text, i, w) {
				step(len(w), 0, len(w))
			}
		}
		if length := wordLike(text, i); !hex && length > 0 {
			step(length, wordLikeBits*float64(length), 0)
		}
		if length := sequenceLength(rows, i); length > 0 {
			step(length, sequenceBits, 0)
		}
		for length, longest := minRepeat, repeatLength(text, i); length <= longest; length++ {
			step(length, repeatBits, 0)
		}
	}
	end := best[len(text)]
	return end.bits, end.words
}

// alphabet guesses the size of the alphabet that the secret is written in. Separators do not count: a UUID is hex.
func alphabet(text []rune) (size int, hex bool) {
	different := map[rune]bool{}
	var digits, lower, upper, punctuation, other, beyondHex bool
	for _, r := range text {
		different[r] = true
		switch {
		case isSeparator(r):
			continue
		case r >= '0' && r <= '9':
			digits = true
		case r >= 'a' && r <= 'z':
			lower = true
		case r >= 'A' && r <= 'Z':
			upper = true
		case r < unicode.MaxASCII:
			punctuation = true
		default:
			other = true
		}
		beyondHex = beyondHex || !strings.ContainsRune("0123456789abcdefABCDEF", r)
	}
	if hex = !beyondHex && lower != upper; hex {
		size = 16
	} else {
		for _, class := range []struct {
			used bool
			size int
		}{{digits, 10}, {lower, 26}, {upper, 26}, {punctuation, 33}, {other, 100}} {
			if class.used {
				size += class.size
			}
		}
	}
	if few := len(different); few < 8 {
		size = min(size, few)
	}
	return max(size, 1), hex
}

func isSeparator(r rune) bool { return strings.ContainsRune("-_ .,:;/|=", r) }

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// spells reports whether word stands at i. A short word must stand alone.
func spells(text []rune, i int, word string) bool {
	end := i + len(word)
	if end > len(text) || len(word) < minKnownWord && !standsAlone(text, i, end) {
		return false
	}
	for j, w := range word {
		if r := unicode.ToLower(text[i+j]); r != w && (len(word) < minLeetWord || leetLetter(r) != w) {
			return false
		}
	}
	return true
}

// wordLike is how many letters from i on read like a word, all in one case but for a capital at the start; 0: too few.
func wordLike(text []rune, i int) int {
	end := i
	for end < len(text) && isLetter(text[end]) && (end == i || follows(text, i, end)) {
		end++
	}
	if length := end - i; length >= minWordLike || length >= minWordLikeAlone && standsAlone(text, i, end) {
		return length
	}
	return 0
}

// follows reports whether the letter at j goes on with the word that starts at i.
func follows(text []rune, i, j int) bool {
	before, r := text[j-1], text[j]
	sameCase := unicode.IsUpper(before) == unicode.IsUpper(r) || j == i+1 && unicode.IsUpper(before)
	return sameCase && strings.ContainsRune(usualNext[unicode.ToLower(before)-'a'], unicode.ToLower(r))
}

// standsAlone reports whether the characters from start to end have a separator, a change to a capital, or nothing on
// both sides, and are in one case but for a capital at the start.
func standsAlone(text []rune, start, end int) bool {
	for _, r := range text[start+1 : end] {
		if unicode.IsUpper(r) != unicode.IsUpper(text[end-1]) {
			return false
		}
	}
	return isBoundary(text, start) && isBoundary(text, end)
}

func isBoundary(text []rune, i int) bool {
	return i == 0 || i == len(text) || isSeparator(text[i-1]) || isSeparator(text[i]) ||
		unicode.IsLower(text[i-1]) && unicode.IsUpper(text[i])
}

// sequences are what people type when they want many characters.
var sequences = []string{"0123456789abcdefghijklmnopqrstuvwxyz", "1234567890", "qwertyuiop", "qwertzuiop", "asdfghjkl",
	"zxcvbnm", "yxcvbnm"}

// places gives for each sequence where in it the characters of text are; -1: nowhere.
func places(text []rune) [][]int {
	all := make([][]int, len(sequences))
	for i, sequence := range sequences {
		all[i] = make([]int, len(text))
		for j, r := range text {
			all[i][j] = strings.IndexRune(sequence, unicode.ToLower(r))
		}
	}
	return all
}

// sequenceLength is how long the sequence is that starts at i; 0: too short to be one.
func sequenceLength(places [][]int, i int) int {
	longest := 0
	for _, place := range places {
		if place[i] < 0 {
			continue
		}
		for _, direction := range []int{1, -1} {
			if n := runLength(place[i:], direction, 1, false); n >= minSequence {
				longest = max(longest, n)
			}
			if n := runLength(place[i:], direction, 1, true); n >= minStutter {
				longest = max(longest, n)
			}
			if n := runLength(place[i:], direction, 2, false); n >= minInterleaved {
				longest = max(longest, n)
			}
		}
	}
	return longest
}

// runLength is how many characters go on in a direction, each compared with the one that is stride before it. With
// stutter a character may stand several times.
func runLength(place []int, direction, stride int, stutter bool) int {
	n := 0
	for ; n < len(place) && place[n] >= 0; n++ {
		if n < stride {
			continue
		}
		if step := place[n] - place[n-stride]; step != direction && (step != 0 || !stutter) {
			break
		}
	}
	return n
}

// repeatLength is how many characters from i on were there before, in one piece that may run into the repetition.
func repeatLength(text []rune, i int) int {
	longest := 0
	for from := range i {
		n := 0
		for i+n < len(text) && text[from+n] == text[i+n] {
			n++
		}
		longest = max(longest, n)
	}
	return longest
}
