package sealed

import (
	"context"
	"fmt"
	"strings"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
)

// A store's check is a known text, sealed under each key under which something in the store may be sealed, with spaces
// between: so a keyset that lacks one of them is known before anybody misses what it cannot open.
const (
	checkText = "parley"
	checkName = "store.check"
)

// Check tells whether the keys, or none, fit a store, and changes nothing. Its errors are those of [New].
func Check(ctx context.Context, store chat.Store, keys *seal.Keyset) error {
	_, _, err := compare(ctx, store, keys)
	return err
}

// check tells whether the keys fit a store, and notes in it that something may be sealed under their primary.
func check(ctx context.Context, store chat.Store, keys *seal.Keyset) error {
	stored, noted, err := compare(ctx, store, keys)
	if err != nil || noted || keys == nil {
		return err
	}
	return note(ctx, store, keys, stored)
}

// compare gives a store's check, and whether it has the primary key.
func compare(ctx context.Context, store chat.Store, keys *seal.Keyset) (stored string, noted bool, err error) {
	if stored, err = store.SealCheck(ctx); err != nil {
		return "", false, err
	}
	if keys == nil {
		if stored != "" {
			err = ErrNoKeyset
		}
		return stored, false, err
	}
	for sealed := range strings.FieldsSeq(stored) {
		text, err := keys.Open(sealed, checkName)
		if err == nil && text != checkText {
			err = seal.ErrUndecryptable
		}
		if err != nil {
			return "", false, fmt.Errorf("%w (%w)", ErrWrongKeyset, err)
		}
		noted = noted || keys.ByPrimary(sealed)
	}
	return stored, noted, nil
}

// note adds the primary key to those that a store's check has.
func note(ctx context.Context, store chat.Store, keys *seal.Keyset, before string) error {
	sealed, err := keys.Seal(checkText, checkName)
	if err != nil {
		return err
	}
	return store.SetSealCheck(ctx, strings.TrimSpace(before+" "+sealed))
}
