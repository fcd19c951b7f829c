package config

import "strings"

// guessable are the words of placeholders and of the phrases that people make up for a secret.
const guessable = `
	abc access account admin administrator again alpha always an and another any anything api app apple application are
	at auth authentication authorization
	baby bar base battery baz be bearer been before below best beta better big bit bits black blue brown but by byte bytes
	can cat change changed changeit changeme changes changethis char character characters chars chat choose client cloud
	code complex computer config configuration configure correct create credential credentials
	data database day default defaults demo demonstration deploy dev devel develop developer development do docker
	dog dogs dolor dont dragon dummy
	edit encode encoded encrypt encryption enough enter entropy env environment error ever every example examples
	fake family file fill first fixme foo foobar football for forever forty four fox friend friends from fun
	gamma generate generated generator give go god good great green
	had hard has hash have he hello help her here hex hidden him his hmac home horse how hs256 hs384 hs512 human
	if important in insecure insert instead ipsum is it its
	jazz json jump jumps just jwt jwts
	keep key keygen keys know kubernetes
	lazy least length less let letmein letters like little live local localhost login long longer look lorem love
	make making master me mean message minimum mode model monkey more most must my mykey mysecret
	name need never new nine no nobody not nothing now number numbers
	of off official ok old on once one online only open openssl or order other our out over own
	parley pass passcode passphrase passw0rd passwd password passwords people place placeholder please prince princess
	private prod product production project provide public put
	question quick qux qwerty
	rand random randomly raw read real really red redacted remove repeat replace replaced replaceme required right root
	safe same sample save say secret secrets secretkey secure securely security seed server service session set setting
	setup seven shadow shall shared she should sign signature signed signing simple sit six so some someone something
	staging staple star start starwars still store stored string strings strong summer sun sunshine super supersecret
	sure system
	take temp template temporary ten test tester testing tests text than that the their them then there these they thing
	things this those thousand three time tmp to today todo token tokens too top total trustno1 two
	unknown unsafe until up update us use used user username users using
	value values var variable very
	want was way we weak welcome well were what when where which white who will winter with without word words work
	world would write
	xxx xyz xxxx xxxxxxxx
	year yellow yes you your yourself yours
	zero
	16 24 32 48 64 128 256 384 512
	baadf00d baddcafe badf00d c0ffee cafebabe cafed00d deadbeef deadc0de decafbad feedface
`

const leetSigns = "0134578@$!"

// leetLetter gives the letter that a digit or sign stands for in leetspeak, else 0.
func leetLetter(r rune) rune {
	if i := strings.IndexRune(leetSigns, r); i >= 0 {
		return rune("oieastbasi"[i])
	}
	return 0
}

// knownWords holds the words by the characters that can begin them.
var knownWords = func() map[rune][]string {
	words := map[rune][]string{}
	for _, w := range strings.Fields(guessable) {
		words[rune(w[0])] = append(words[rune(w[0])], w)
		for _, sign := range leetSigns {
			if len(w) >= minLeetWord && leetLetter(sign) == rune(w[0]) {
				words[sign] = append(words[sign], w)
			}
		}
	}
	return words
}()

// usualNext gives for each letter, from a to z, those that follow it often in English words: a third of all pairs,
// which make up more than nine tenths of a text.
var usualNext = [26]string{
	"bcdgiklmnprstuvwy", "abeilorsuy", "acehiklortu", "adegilorsuy", "abcdefgilmnpqrstvwxy", "aefilortu", "aeghilnorsu",
	"aeiortuy", "abcdefgklmnoprstvz", "aeou", "aeilnsy", "adefiklostuvy", "abeimopsuy", "acdegiklnostuvy",
	"abcdfgiklmnoprstuvwy", "aehiloprstuy", "u", "acdefgiklmnorstuy", "acehiklmnopstuwy", "acehilorstuwy",
	"abcdegilmnprst", "aeio", "aehinors", "aeipt", "aeilopst", "aeizoy",
}
