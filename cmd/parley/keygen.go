package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley/internal/seal"
)

func keygenCommand() *cobra.Command {
	var encryption bool
	var extended string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Print a new random JWT secret, or a keyset for the encryption of stored text",
		Long: `Print a new random JWT secret, or, with --encryption, a keyset for the encryption of stored text.

A keyset is as secret as the texts, and without it they are gone: let nobody but the server read its file, and keep a
copy that is not with the store's.

  (umask 077; parley keygen --encryption > keys.json)

To change the key, write the keyset with a further one to another file, and put it into the place of the old:

  (umask 077; parley keygen --encryption --extend keys.json > new.json) && mv new.json keys.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case cmd.Flags().Changed("extend") && extended == "":
				return usageError("--extend needs the name of a file")
			case extended != "" && !encryption:
				return usageError("--extend is for keysets: say --encryption, too")
			case encryption:
				keyset, err := newKeyset(extended)
				if err == nil {
					_, err = cmd.OutOrStdout().Write(keyset)
				}
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), newSecret())
			return nil
		},
	}
	cmd.Flags().BoolVar(&encryption, "encryption", false, "print a keyset for the encryption of stored text instead")
	cmd.Flags().StringVar(&extended, "extend", "",
		"print the keyset in `FILE` with a further key, which encrypts from then on; the others still decrypt")
	return cmd
}

// newKeyset makes a keyset, or extends the one in a file.
func newKeyset(extended string) ([]byte, error) {
	if extended == "" {
		return seal.Generate()
	}
	old, err := os.ReadFile(extended)
	if err != nil {
		return nil, err
	}
	keyset, err := seal.Extend(old)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", extended, err)
	}
	return keyset, nil
}
