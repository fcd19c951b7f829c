// Command parley runs the Parley chat server and what belongs to operating it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/config"
)

// The exit codes, beside 0.
const (
	exitFailed = 1
	exitUsage  = 2 // or a configuration that is not valid
	exitForced = 3 // the shutdown deadline passed and connections were cut
)

func main() {
	err := run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	os.Exit(exitCode(err))
}

// run executes one command, and tells on stderr what went wrong. environ is as of [os.Environ].
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) error {
	started := false
	root := &cobra.Command{
		Use:   "parley",
		Short: "The chat server for products with a language model inside",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(stderr)
			return errors.Join(usageError("name a command"), cmd.Help())
		},
		PersistentPreRun: func(*cobra.Command, []string) { started = true },
		SilenceErrors:    true,
		SilenceUsage:     true,
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(
		devCommand(environ), serveCommand(environ), checkCommand(environ), tokenCommand(environ),
		keygenCommand(), configCommand(environ), storageCommand(environ), versionCommand(),
	)
	err := root.ExecuteContext(ctx)
	if err != nil && !started { // nothing but the flags and arguments was looked at
		err = usageError(err.Error())
	}
	report(stderr, err)
	return err
}

// usageError is a command line that cannot be carried out.
type usageError string

func (e usageError) Error() string { return string(e) }

func report(stderr io.Writer, err error) {
	problems := config.Problems(err)
	if usage, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "parley: %s\nRun `parley help` for the commands, `parley COMMAND --help` for the flags.\n", usage)
	} else if len(problems) > 0 {
		fmt.Fprintf(stderr, "parley: the configuration is not valid:\n")
		for _, p := range problems {
			fmt.Fprintf(stderr, "  %v\n", p)
		}
		fmt.Fprintf(stderr, "`parley config --example` prints all keys with their defaults.\n")
	} else if err != nil {
		fmt.Fprintf(stderr, "parley: %v\n", err)
	}
}

func exitCode(err error) int {
	_, isUsage := errors.AsType[usageError](err)
	switch {
	case err == nil:
		return 0
	case isUsage || len(config.Problems(err)) > 0:
		return exitUsage
	case errors.Is(err, parley.ErrForced):
		return exitForced
	}
	return exitFailed
}
