package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
)

func tokenCommand(environ []string) *cobra.Command {
	s := settings{environ: environ}
	var user chat.User
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a token that is signed with the configured secret",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if user.ID == "" {
				return usageError("--sub is required: the user's ID")
			}
			cfg, err := s.load(cmd, config.Default())
			if err := onlyProblemsOf(err, "auth"); err != nil {
				return err
			}
			if cfg.Auth.JWTSecret == "" {
				return usageError("only tokens of auth.jwt_secret can be signed here: who has the private key signs the others")
			}
			user.TokenID, user.Roles = chat.NewID(), cleanRoles(user.Roles)
			token, err := auth.Sign(cfg.Auth.JWTSecret, user, cfg.Auth.Issuer, cfg.Auth.Audience, time.Now(), ttl)
			if err != nil {
				return usageError(err.Error())
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}
	s.add(cmd)
	cmd.Flags().StringVar(&user.ID, "sub", "", "the user's `ID`")
	cmd.Flags().StringVar(&user.Name, "name", "", "the `NAME` that others see")
	cmd.Flags().StringSliceVar(&user.Roles, "roles", nil, "a comma-separated list of roles, such as admin,agent")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long the token is valid")
	return cmd
}

// cleanRoles drops the spaces and the empty entries that people leave in a list.
func cleanRoles(roles []string) []string {
	var cleaned []string
	for _, r := range roles {
		if r = strings.TrimSpace(r); r != "" {
			cleaned = append(cleaned, r)
		}
	}
	return cleaned
}

// onlyProblemsOf leaves of a configuration's problems those that concern a section: the rest of the configuration may be
// elsewhere.
func onlyProblemsOf(err error, section string) error {
	problems := config.Problems(err)
	if len(problems) == 0 {
		return err
	}
	var errs []error
	for _, p := range problems {
		if p.Key == section || strings.HasPrefix(p.Key, section+".") || p.Key == config.FileFlag {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}
