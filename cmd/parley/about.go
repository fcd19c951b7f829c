package main

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley/config"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

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
			module, commit := buildInfo()
			fmt.Fprintf(cmd.OutOrStdout(), "parley %s\ncommit %s\n%s %s/%s\n",
				cmp.Or(version, module, "unknown"), cmp.Or(commit, "unknown"), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// buildInfo gives the module's version and the commit, as far as the build recorded them.
func buildInfo() (module, commit string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if commit != "" && dirty {
		commit += " (modified)"
	}
	return info.Main.Version, commit
}
