// Package seal encrypts text so that a stolen database, backup or disk shows nothing of it.
//
// A [Keyset] is Tink's: AES-GCM keys of which the primary seals, and any opens what it has sealed, so that keys can be
// replaced while old ones are still in use. What is sealed is bound to its place by associated data, such as the IDs of
// its session and message: moved elsewhere it does not open.
package seal

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// ErrUndecryptable is what a sealed text is that does not open: it was changed, belongs elsewhere, or was sealed under
// a key that the keyset does not have.
var ErrUndecryptable = errors.New("the sealed text cannot be opened")

// Keyset seals and opens. All methods are safe for concurrent use.
type Keyset struct {
	aead    tink.AEAD
	primary uint32          // the ID of the key that seals
	keys    map[uint32]bool // the IDs of those that open
}

// prefixSize is that of Tink's prefix: a 1, and the key's ID in four bytes, big-endian.
const prefixSize = 5

// scratch is memory for what goes into the cipher, as the cipher keeps nothing of it.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// maxScratch is the largest memory that is kept.
const maxScratch = 64 << 10

// Seal encrypts a text. What it gives is text too, of about 4/3 of the length and 44 bytes. It opens with the same
// associated data only, part by part. An empty text stays empty: that there is none is not hidden.
func (k *Keyset) Seal(plain string, associated ...string) (string, error) {
	if plain == "" {
		return "", nil
	}
	memory := scratch.Get().(*[]byte)
	defer release(memory)
	*memory = append((*memory)[:0], plain...)
	size := len(*memory)
	*memory = appendAssociated(*memory, associated)
	sealed, err := k.aead.Encrypt((*memory)[:size], (*memory)[size:])
	if err != nil {
		return "", fmt.Errorf("seal a text: %w", err)
	}
	return base64.RawStdEncoding.EncodeToString(sealed), nil
}

// Open is the inverse of Seal. [ErrUndecryptable]: it cannot be.
func (k *Keyset) Open(sealed string, associated ...string) (string, error) {
	if sealed == "" {
		return "", nil
	}
	data, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		return "", fmt.Errorf("%w: it is not the text that was stored", ErrUndecryptable)
	}
	plain, err := k.OpenBytes(data, associated...)
	return string(plain), err
}

// SealBytes encrypts bytes, of which there may be none. It adds 33.
func (k *Keyset) SealBytes(plain []byte, associated ...string) ([]byte, error) {
	memory := scratch.Get().(*[]byte)
	defer release(memory)
	*memory = appendAssociated((*memory)[:0], associated)
	sealed, err := k.aead.Encrypt(plain, *memory)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed, nil
}

// OpenBytes is the inverse of SealBytes. [ErrUndecryptable]: it cannot be.
func (k *Keyset) OpenBytes(sealed []byte, associated ...string) ([]byte, error) {
	memory := scratch.Get().(*[]byte)
	defer release(memory)
	*memory = appendAssociated((*memory)[:0], associated)
	plain, err := k.aead.Decrypt(sealed, *memory)
	if err == nil {
		return plain, nil
	}
	if id, ok := keyID(sealed); !ok {
		return nil, fmt.Errorf("%w: it is none", ErrUndecryptable)
	} else if !k.keys[id] {
		return nil, fmt.Errorf("%w: the keyset has no key %d, under which it was sealed", ErrUndecryptable, id)
	}
	return nil, fmt.Errorf("%w: it was changed, or belongs elsewhere", ErrUndecryptable)
}

func release(memory *[]byte) {
	if cap(*memory) <= maxScratch {
		scratch.Put(memory)
	}
}

// appendAssociated writes each part with its length before it, so that no two lists come to the same bytes.
func appendAssociated(buf []byte, parts []string) []byte {
	for _, part := range parts {
		buf = binary.AppendUvarint(buf, uint64(len(part)))
		buf = append(buf, part...)
	}
	return buf
}

// ByPrimary reports whether a text was sealed under the primary key, so that it need not be sealed again. It looks at
// what the text says of itself, and opens nothing. An empty text needs nothing either.
func (k *Keyset) ByPrimary(sealed string) bool {
	id, ok := KeyID(sealed)
	return sealed == "" || ok && id == k.primary
}

// Primary gives the ID of the key that seals.
func (k *Keyset) Primary() uint32 { return k.primary }

// KeyID gives the ID of the key under which a text was sealed, as the text says. It is not ok where that says nothing.
// IDs are no secret: the keyset's file shows each as keyId.
func KeyID(sealed string) (id uint32, ok bool) {
	const chars = 8 // are six bytes
	if len(sealed) < chars {
		return 0, false
	}
	var head [6]byte
	if _, err := base64.RawStdEncoding.Decode(head[:], []byte(sealed[:chars])); err != nil {
		return 0, false
	}
	return keyID(head[:])
}

func keyID(sealed []byte) (id uint32, ok bool) {
	if len(sealed) < prefixSize || sealed[0] != 1 {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:prefixSize]), true
}
