package eliza

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// keyword is a word that the doctor listens for. Of those in a sentence the one with the highest rank decides.
type keyword struct {
	words []string // the forms of it that are one and the same to the doctor
	rank  int
	rules []rule
}

// rule takes a sentence apart and makes an answer of its parts.
//
// The pattern is made of words, which stand for themselves; @group, for one word of a group; +, for one or more words;
// and *, for any number of them. The last three are the parts: $1, $2 and so on in an answer, where they are turned
// from the patient's view to the doctor's. An answer =word goes on with that keyword's rules. The answers of a rule are
// given in turn.
type rule struct {
	pattern string
	answers []string
}

// maxWords is how much of a sentence is looked at, and maxBytes how long a word may be: enough for all that people say
// in one breath, and little enough that matching takes no time, and repeating it little room, whatever arrives.
const (
	maxWords = 60
	maxBytes = 100
)

// doctor is one conversation.
type doctor struct {
	keywords map[string]*keyword
	said     map[*rule]int // how many answers each rule has given
	memory   []string      // what to come back to, oldest first
	answered int
}

func newDoctor(keywords map[string]*keyword) *doctor {
	return &doctor{keywords: keywords, said: make(map[*rule]int)}
}

// index finds keywords by each of their forms.
func index(keywords []keyword) map[string]*keyword {
	byWord := make(map[string]*keyword)
	for i := range keywords {
		for _, word := range keywords[i].words {
			byWord[word] = &keywords[i]
		}
	}
	return byWord
}

// answer is what the doctor says to text.
func (d *doctor) answer(text string) string {
	d.answered++
	if shown := demonstration(text); shown != "" {
		return shown
	}
	sentence, keys := d.listen(text)
	for _, key := range keys {
		if answer, ok := d.apply(key, sentence); ok {
			d.memorize(keys[0], sentence)
			return answer
		}
	}
	if d.answered == 1 {
		return welcome
	}
	if len(d.memory) > 0 {
		remembered := d.memory[0]
		d.memory = d.memory[1:]
		return remembered
	}
	return d.next(&silence)
}

// listen returns the sentence to answer and its keywords, the highest rank first. The paper takes the first sentence
// that has a keyword; taking the first of those with the highest rank keeps a "Hello!" from hiding what comes after.
func (d *doctor) listen(text string) (sentence []string, keys []*keyword) {
	for _, words := range sentences(text) {
		found := d.keys(words)
		if len(found) > 0 && (len(keys) == 0 || found[0].rank > keys[0].rank) {
			sentence, keys = words, found
		}
	}
	return sentence, keys
}

// keys returns the keywords in words. As in the paper, one that outranks all before it goes to the front, any other to
// the end.
func (d *doctor) keys(words []string) []*keyword {
	var keys []*keyword
	for _, word := range words {
		key := d.keywords[strings.ToLower(word)]
		switch {
		case key == nil || slices.Contains(keys, key):
		case len(keys) > 0 && key.rank > keys[0].rank:
			keys = slices.Insert(keys, 0, key)
		default:
			keys = append(keys, key)
		}
	}
	return keys
}

// apply answers by the first rule of key whose pattern fits.
func (d *doctor) apply(key *keyword, words []string) (answer string, ok bool) {
	for i := range key.rules {
		parts, ok := match(strings.Fields(key.rules[i].pattern), words)
		if !ok {
			continue
		}
		answer := d.next(&key.rules[i])
		if other, ok := strings.CutPrefix(answer, "="); ok {
			return d.apply(d.keywords[other], words)
		}
		return assemble(answer, parts), true
	}
	return "", false
}

// next returns the rule's next answer.
func (d *doctor) next(r *rule) string {
	answer := r.answers[d.said[r]%len(r.answers)]
	d.said[r]++
	return answer
}

// memorize keeps what the patient said about something of their own, to come back to it when there is nothing else to
// say. The paper takes one rule at random; taking them in turn is as good.
func (d *doctor) memorize(key *keyword, words []string) {
	if key != d.keywords["my"] {
		return
	}
	if parts, ok := match(strings.Fields(recollection.pattern), words); ok {
		d.memory = append(d.memory, assemble(d.next(&recollection), parts))
	}
}

// sentences parts text at punctuation, and at "but", into words. Contractions are written out and synonyms replaced, so
// that the script needs one form of each.
func sentences(text string) [][]string {
	var all [][]string
	var words []string
	end := func() {
		if len(words) > 0 {
			all = append(all, words)
		}
		words = nil
	}
	add := func(word string) {
		if word = strings.Trim(word, "'-"); word == "" || len(word) > maxBytes {
			return
		}
		if strings.EqualFold(word, "but") {
			end()
		} else if said := heard(word); len(words)+len(said) <= maxWords {
			words = append(words, said...)
		}
	}
	text = strings.NewReplacer("’", "'", "‘", "'").Replace(text)
	start := -1
	for i, r := range text {
		inWord := unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == '\'' || r == '-'
		if inWord && start < 0 {
			start = i
		}
		if !inWord && start >= 0 {
			add(text[start:i])
			start = -1
		}
		if strings.ContainsRune(".,;:!?…—–()\n", r) {
			end()
		}
	}
	if start >= 0 {
		add(text[start:])
	}
	end()
	return all
}

// heard is what the doctor takes a word for.
func heard(word string) []string {
	if said, ok := substitutions[strings.ToLower(word)]; ok {
		return strings.Fields(said)
	}
	return []string{word}
}

// match fits words to a pattern and returns the parts. Each * and + takes as little as it can.
func match(pattern, words []string) (parts [][]string, ok bool) {
	if len(pattern) == 0 {
		return nil, len(words) == 0
	}
	first, rest := pattern[0], pattern[1:]
	switch {
	case first == "*" || first == "+":
		least := 0
		if first == "+" {
			least = 1
		}
		for n := least; n <= len(words); n++ {
			if parts, ok := match(rest, words[n:]); ok {
				return append([][]string{words[:n]}, parts...), true
			}
		}
		return nil, false
	case len(words) == 0:
		return nil, false
	case first[0] == '@':
		if !slices.Contains(groups[first[1:]], strings.ToLower(words[0])) {
			return nil, false
		}
		parts, ok = match(rest, words[1:])
		return append([][]string{words[:1]}, parts...), ok
	case !strings.EqualFold(first, words[0]):
		return nil, false
	}
	return match(rest, words[1:])
}

// assemble puts the parts into an answer.
func assemble(answer string, parts [][]string) string {
	pairs := make([]string, 0, 2*len(parts))
	for i, part := range parts {
		pairs = append(pairs, "$"+strconv.Itoa(i+1), strings.Join(reflect(part), " "))
	}
	text := strings.Join(strings.Fields(strings.NewReplacer(pairs...).Replace(answer)), " ")
	// A part may have been empty.
	text = strings.NewReplacer(" ?", "?", " .", ".", " ,", ",").Replace(text)
	first := []rune(text)
	first[0] = unicode.ToUpper(first[0])
	return string(first)
}

// reflect turns words from the patient's view to the doctor's.
func reflect(words []string) []string {
	reflected := make([]string, len(words))
	for i, word := range words {
		lower := strings.ToLower(word)
		before, after := "", ""
		if i > 0 {
			before = strings.ToLower(words[i-1])
		}
		if i+1 < len(words) {
			after = strings.ToLower(words[i+1])
		}
		other, known := reflections[lower]
		switch {
		case lower == "you" && (before == "" && after != "" || isVerb(before) || isVerb(after)):
			other = "I"
		case lower == "are" && (before == "you" || after == "you"):
			other = "am"
		case lower == "were" && (before == "you" || after == "you" && before != "i"):
			other = "was"
		case lower == "was" && (before == "i" || after == "i"):
			other = "were"
		case !known:
			other = word
		}
		reflected[i] = other
	}
	return reflected
}

// isVerb tells the verbs beside which "you" is the one who acts.
func isVerb(word string) bool { return slices.Contains(groups["verb"], word) }
