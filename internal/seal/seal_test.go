package seal_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"pgregory.net/rapid"

	"github.com/parley-chat/parley/internal/seal"
)

func generate(t testing.TB) []byte {
	t.Helper()
	data, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func extend(t testing.TB, old []byte) []byte {
	t.Helper()
	data, err := seal.Extend(old)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, data []byte) *seal.Keyset {
	t.Helper()
	k, err := seal.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustSeal(t testing.TB, k *seal.Keyset, plain string, associated ...string) string {
	t.Helper()
	sealed, err := k.Seal(plain, associated...)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestWhatIsSealedOpens(t *testing.T) {
	k := parse(t, generate(t))
	rapid.Check(t, func(rt *rapid.T) {
		plain := rapid.OneOf(rapid.String(), rapid.Just("\xff\x00"), rapid.Just(strings.Repeat("long ", 50_000))).Draw(rt, "plain")
		parts := rapid.SliceOf(rapid.String()).Draw(rt, "associated")
		sealed := mustSeal(t, k, plain, parts...)
		if got, err := k.Open(sealed, parts...); err != nil || got != plain {
			rt.Errorf("%q opens as %q, %v", plain, got, err)
		}
		if !utf8.ValidString(sealed) || len(plain) > 8 && strings.Contains(sealed, plain) || !k.ByPrimary(sealed) {
			rt.Errorf("%q is sealed as %q", plain, sealed)
		}
		data, err := k.SealBytes([]byte(plain), parts...)
		if err != nil {
			rt.Fatal(err)
		}
		if got, err := k.OpenBytes(data, parts...); err != nil || string(got) != plain || len(data) != len(plain)+33 {
			rt.Errorf("the %d bytes of %q open as %q, %v", len(data), plain, got, err)
		}
	})
	if a, b := mustSeal(t, k, "twice"), mustSeal(t, k, "twice"); a == b {
		t.Errorf("a text is sealed twice as %q", a)
	}
}

func TestAnEmptyTextStaysEmpty(t *testing.T) {
	k := parse(t, generate(t))
	sealed := mustSeal(t, k, "", "session")
	opened, err := k.Open("", "another")
	if sealed != "" || opened != "" || err != nil || !k.ByPrimary("") {
		t.Errorf("nothing is sealed as %q and opens as %q, %v", sealed, opened, err)
	}
}

// TestItOpensInItsPlaceOnly tries lists of parts that come to the same text where nothing tells the parts apart.
func TestItOpensInItsPlaceOnly(t *testing.T) {
	k := parse(t, generate(t))
	places := [][]string{
		nil, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"b", "a"}, {"ab", ""}, {"", "ab"}, {"a", "", "b"}, {"\x01a"}, {"\x01a\x01b"},
		{strings.Repeat("a", 127)}, {strings.Repeat("a", 128)}, {strings.Repeat("a", 300)},
	}
	for i, place := range places {
		sealed := mustSeal(t, k, "text", place...)
		for j, other := range places {
			if got, err := k.Open(sealed, other...); (i == j) != (err == nil) || err != nil && !errors.Is(err, seal.ErrUndecryptable) {
				t.Errorf("sealed at %q, at %q it opens as %q, %v", place, other, got, err)
			}
		}
	}
}

func TestWhatWasChangedDoesNotOpen(t *testing.T) {
	k := parse(t, generate(t))
	sealed := mustSeal(t, k, "some text", "place")
	data, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for i := range data {
		changed, cut := bytes.Clone(data), data[:i]
		changed[i] ^= 1
		all = append(all, changed, cut)
	}
	for _, data := range append(all, append(bytes.Clone(data), 0)) {
		if got, err := k.OpenBytes(data, "place"); !errors.Is(err, seal.ErrUndecryptable) || got != nil {
			t.Errorf("%x opens as %q, %v", data, got, err)
		}
		text := base64.RawStdEncoding.EncodeToString(data)
		if got, err := k.Open(text, "place"); text != "" && (!errors.Is(err, seal.ErrUndecryptable) || got != "") {
			t.Errorf("%s opens as %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"some text", "AQ", "====", "AQAAAAAA", strings.Repeat("A", 80), "\xff"} {
		if got, err := k.Open(text, "place"); !errors.Is(err, seal.ErrUndecryptable) || got != "" || k.ByPrimary(text) {
			t.Errorf("%q opens as %q, %v", text, got, err)
		}
	}
}

func TestRotation(t *testing.T) {
	first := generate(t)
	second := extend(t, first)
	old, rotated := parse(t, first), parse(t, second)
	before, after := mustSeal(t, old, "before"), mustSeal(t, rotated, "after")
	for sealed, want := range map[string]string{before: "before", after: "after"} {
		if got, err := rotated.Open(sealed); err != nil || got != want {
			t.Errorf("under the keyset with both %q opens as %q, %v", want, got, err)
		}
	}
	if rotated.ByPrimary(before) || !rotated.ByPrimary(after) || !old.ByPrimary(before) || old.ByPrimary(after) {
		t.Error("it is not told which key is the primary")
	}
	if id, ok := seal.KeyID(before); !ok || id != old.Primary() || id == rotated.Primary() {
		t.Errorf("sealed under %d, %v: the keys are %d, then %d", id, ok, old.Primary(), rotated.Primary())
	}
	_, err := old.Open(after)
	if want := fmt.Sprint("no key ", rotated.Primary()); !errors.Is(err, seal.ErrUndecryptable) || !strings.Contains(err.Error(), want) {
		t.Errorf("without the new key: %v", err)
	}
	third := parse(t, extend(t, second))
	if got, err := third.Open(before); err != nil || got != "before" || third.Primary() == rotated.Primary() {
		t.Errorf("under the third keyset the first's text opens as %q, %v", got, err)
	}
}

// TestItIsTinks: whoever has Tink and the keyset's file can open what Parley has sealed, and make keysets for it.
func TestItIsTinks(t *testing.T) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	tinks, err := aead.New(handle)
	if err != nil {
		t.Fatal(err)
	}
	sealed := mustSeal(t, parse(t, write(t, handle)), "text", "ab", "c")
	data, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tinks.Decrypt(data, []byte("\x02ab\x01c")); err != nil || string(got) != "text" {
		t.Errorf("for Tink it is %q, %v", got, err)
	}
}

func write(t testing.TB, handle *keyset.Handle) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buf)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func made(t testing.TB, template *tinkpb.KeyTemplate) []byte {
	t.Helper()
	handle, err := keyset.NewHandle(template)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, handle)
}

func TestWhatIsNoKeysetIsToldAsSuch(t *testing.T) {
	good := string(generate(t))
	secret := good[strings.Index(good, `"value": "`)+10:]
	secret = secret[:strings.Index(secret, `"`)]
	raw := aead.AES256GCMNoPrefixKeyTemplate()
	for want, data := range map[string]string{
		"is empty":                                  " \n",
		"no keyset":                                 `{"keys": "` + secret + `"}`,
		"no keyset in":                              good[:len(good)/2],
		"no keyset in Tink's JSON":                  strings.Replace(good, secret, "a"+secret[:20], 1),
		"a primary key that is enabled":             strings.ReplaceAll(good, "ENABLED", "DISABLED"),
		"is encrypted itself":                       `{"encryptedKeyset": "AAAA", "keysetInfo": {}}`,
		"is no AES-GCM key":                         string(made(t, mac.HMACSHA256Tag128KeyTemplate())),
		"which is no AES-GCM key with Tink's":       string(made(t, aead.ChaCha20Poly1305KeyTemplate())),
		"no AES-GCM key with Tink's prefix: `parle": string(made(t, raw)),
	} {
		path := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := seal.Read(path)
		if err == nil || k != nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", want, err)
		}
		if err != nil && strings.Contains(err.Error(), secret[:10]) {
			t.Errorf("the key is shown: %v", err)
		}
		if _, err := seal.Extend([]byte(data)); err == nil {
			t.Errorf("%s: it is extended", want)
		}
	}
	if _, err := seal.Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "parley keygen") {
		t.Errorf("of a file that is missing: %v", err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Read(path); err != nil || !strings.HasSuffix(good, "}\n") || strings.Count(good, "\n") < 10 {
		t.Errorf("a good keyset is %s, %v", good, err)
	}
	if text := fmt.Sprintf("%+v %#v", parse(t, []byte(good)), parse(t, []byte(good))); strings.Contains(text, secret[:10]) {
		t.Errorf("the key is shown: %s", text)
	}
}

func TestADisabledKeyOpensNothing(t *testing.T) {
	first := generate(t)
	sealed := mustSeal(t, parse(t, first), "text")
	second := string(extend(t, first))
	k := parse(t, []byte(strings.Replace(second, "ENABLED", "DISABLED", 1)))
	if _, err := k.Open(sealed); !errors.Is(err, seal.ErrUndecryptable) || !strings.Contains(err.Error(), "no key ") {
		t.Errorf("got %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	k := parse(t, generate(t))
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for n := range 200 {
				plain := strings.Repeat(fmt.Sprint(i), n)
				sealed, err := k.Seal(plain, plain)
				if err != nil {
					t.Error(err)
				}
				if got, err := k.Open(sealed, plain); err != nil || got != plain {
					t.Errorf("%q opens as %q, %v", plain, got, err)
				}
			}
		})
	}
	group.Wait()
}

var sizes = map[string]string{"20B": strings.Repeat("token", 4), "4KiB": strings.Repeat("words of a text ", 256)}

func BenchmarkSeal(b *testing.B) {
	k := parse(b, generate(b))
	for name, plain := range sizes {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				mustSeal(b, k, plain, "message.text", "a session's ID of some length", "a message's ID of some length")
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	k := parse(b, generate(b))
	for name, plain := range sizes {
		sealed := mustSeal(b, k, plain, "message.text", "a session's ID of some length", "a message's ID of some length")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if _, err := k.Open(sealed, "message.text", "a session's ID of some length", "a message's ID of some length"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
