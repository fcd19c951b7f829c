package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// makeOne is what to do about a file that is no keyset.
const makeOne = "`parley keygen --encryption` makes one"

// Read reads a keyset's file. No error shows anything of a key.
func Read(path string) (*Keyset, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", err, makeOne)
	}
	if err != nil {
		return nil, err
	}
	k, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// Parse reads a keyset: one of AES-GCM keys in Tink's JSON, in the clear. No error shows anything of a key.
func Parse(data []byte) (*Keyset, error) {
	handle, err := parse(data)
	if err != nil {
		return nil, err
	}
	k := &Keyset{keys: make(map[uint32]bool)}
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("the keyset has a key that cannot be read: %w", err)
		}
		key, ok := entry.Key().(*aesgcm.Key)
		if !ok || key.Parameters().(*aesgcm.Parameters).Variant() != aesgcm.VariantTink {
			return nil, fmt.Errorf("the keyset has the key %d, which is no AES-GCM key with Tink's prefix: %s", entry.KeyID(), makeOne)
		}
		if entry.KeyStatus() == keyset.Enabled {
			k.keys[entry.KeyID()] = true
		}
		if entry.IsPrimary() {
			k.primary = entry.KeyID()
		}
	}
	if k.aead, err = aead.New(handle); err != nil {
		return nil, fmt.Errorf("the keyset cannot be used: %w", err)
	}
	return k, nil
}

// parse leaves out what Tink says of a text that it does not understand: it may quote it.
func parse(data []byte) (*keyset.Handle, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("the keyset is empty: %s", makeOne)
	}
	var encrypted struct {
		Keyset *string `json:"encryptedKeyset"`
	}
	if json.Unmarshal(data, &encrypted) == nil && encrypted.Keyset != nil {
		return nil, errors.New("the keyset is encrypted itself: give it in the clear, from a file that only the server can read")
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		return nil, fmt.Errorf("this is no keyset in Tink's JSON with a primary key that is enabled: %s", makeOne)
	}
	return handle, nil
}

// Generate makes a new keyset of one AES-256-GCM key. It is JSON, and as secret as what it seals.
func Generate() ([]byte, error) {
	return extend(keyset.NewManager())
}

// Extend gives a keyset with a further key, which is the primary from then on. The keys there were still open what
// they have sealed.
func Extend(old []byte) ([]byte, error) {
	if _, err := Parse(old); err != nil {
		return nil, err
	}
	handle, err := parse(old)
	if err != nil {
		return nil, err
	}
	return extend(keyset.NewManagerFromHandle(handle))
}

func extend(m *keyset.Manager) ([]byte, error) {
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, fmt.Errorf("make a key the primary: %w", err)
	}
	handle, err := m.Handle()
	if err != nil {
		return nil, fmt.Errorf("make a keyset: %w", err)
	}
	var line, indented bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&line)); err != nil {
		return nil, fmt.Errorf("write a keyset: %w", err)
	}
	if err := json.Indent(&indented, line.Bytes(), "", "  "); err != nil {
		return nil, fmt.Errorf("write a keyset: %w", err)
	}
	return append(indented.Bytes(), '\n'), nil
}
