package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/config"
)

func configCommand(environ []string) *cobra.Command {
	s := settings{environ: environ}
	var example bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration, without its secrets",
		Long:  "Config prints what serve would use, valid or not; what is wrong with it goes to standard error.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				fmt.Fprint(cmd.OutOrStdout(), config.Example())
				return nil
			}
			cfg, err := s.load(cmd, config.Default())
			if _, isUsage := errors.AsType[usageError](err); !isUsage {
				fmt.Fprint(cmd.OutOrStdout(), cfg.Redacted())
			}
			return err
		},
	}
	s.add(cmd)
	cmd.Flags().BoolVar(&example, "example", false, "print a commented file with all keys and their defaults instead")
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			version, commit := parley.Version()
			fmt.Fprintf(cmd.OutOrStdout(), "parley %s\ncommit %s\n%s %s/%s\n",
				version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
