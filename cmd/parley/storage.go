package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
)

func storageCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "storage",
		Short: "Copy, back up, encrypt anew, export or erase what is stored",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			return errors.Join(usageError("name what to do with the storage"), cmd.Help())
		},
	}
	cmd.AddCommand(
		copyCommand(environ), backupCommand(environ), restoredCommand(environ),
		resealCommand(environ), exportCommand(environ), eraseCommand(environ),
	)
	return cmd
}

// storageSettings are those of a command that needs nothing of the configuration but the storage.
type storageSettings struct{ settings }

// load makes the configuration. What is wrong with other parts of it than the storage does not matter.
func (s *storageSettings) load(cmd *cobra.Command) (config.Config, error) {
	cfg, err := s.settings.load(cmd, config.Default())
	return cfg, onlyProblemsOf(err, "storage")
}

// run calls f with a context that ends with a signal, so that what was begun can be ended well.
func (s *storageSettings) run(
	cmd *cobra.Command, f func(ctx context.Context, cfg config.Config, log *slog.Logger) error,
) error {
	cfg, err := s.load(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	log, _ := newLogger(cfg.Log, cmd.ErrOrStderr())
	err = f(ctx, cfg, log)
	if err != nil && ctx.Err() != nil && cmd.Context().Err() == nil {
		return errors.New("interrupted: it can be begun again")
	}
	return err
}

func copyCommand(environ []string) *cobra.Command {
	from, to := storageSettings{settings{environ: environ}}, storageSettings{settings{environ: environ}}
	var prune bool
	cmd := &cobra.Command{
		Use:   "copy --config FILE --to FILE",
		Short: "Copy all that is stored into another, empty storage",
		Long: "Copy copies what the storage of one configuration holds into the one of another: from SQLite to MongoDB when a\n" +
			"product grows. Every session is read back and compared. Begun again it copies what differs: copy once while the\n" +
			"server runs, stop it, and copy again. What is encrypted stays so: both configurations name the same keyset.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to.file == "" {
				return usageError("--to is required: the configuration of the storage to copy into")
			}
			target, err := to.loadFile()
			if err != nil {
				return fmt.Errorf("--to: %w", err)
			}
			return from.run(cmd, func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
				p := newProgress(cmd.ErrOrStderr())
				report, err := parley.CopyStorage(ctx, cfg, target, prune, log, p.show)
				p.end()
				if _, others := errors.AsType[parley.OtherSessionsError](err); others {
					return fmt.Errorf("%w: where they were erased since an earlier copy, --prune removes them; else choose an empty storage", err)
				}
				if err != nil {
					return err
				}
				n := report.Counts
				fmt.Fprintf(cmd.OutOrStdout(), "the target has %d sessions, %d messages and %d usage records, of which %d sessions were copied now\n"+
					"digest %s\n", n.Sessions, n.Messages, n.Usage, report.Copied, report.Digest)
				if report.Changed {
					fmt.Fprintln(cmd.ErrOrStderr(), "parley: the source has changed meanwhile: stop its server with SIGTERM, and copy again")
				}
				if report.Claimed > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "parley: %d sessions are held by a server, or by one that did not end cleanly: stop it "+
						"with SIGTERM, and copy again, or what was said since is missing\n", report.Claimed)
				}
				return nil
			})
		},
	}
	from.add(cmd)
	cmd.Flags().BoolVar(&prune, "prune", false, "remove from the target what the source does not have any more")
	cmd.Flags().StringVar(&to.file, "to", "", "the configuration `FILE` of the storage to copy into")
	return cmd
}

// loadFile makes the configuration of the named file alone: the environment is that of the other one.
func (s *storageSettings) loadFile() (config.Config, error) {
	cfg, err := config.Load(s.file, nil, nil)
	err = onlyProblemsOf(err, "storage")
	for _, p := range config.Problems(err) {
		if p.Key == config.FileFlag {
			return cfg, usageError("--to: " + p.Problem)
		}
	}
	return cfg, err
}

func backupCommand(environ []string) *cobra.Command {
	s := storageSettings{settings{environ: environ}}
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the SQLite database into a file, while a server uses it or not",
		Long: "Backup writes a copy of the database as it is at one moment. It overwrites nothing. To restore it, stop the\n" +
			"server and put the file in the database's place, without the old -wal and -shm files.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, func(ctx context.Context, cfg config.Config, _ *slog.Logger) error {
				return parley.BackupStorage(ctx, cfg, args[0])
			})
		},
	}
	s.add(cmd)
	return cmd
}

func restoredCommand(environ []string) *cobra.Command {
	s := storageSettings{settings{environ: environ}}
	cmd := &cobra.Command{
		Use:   "restored",
		Short: "Say that the storage was restored to an earlier time, after mongorestore or a snapshot",
		Long: "Restored has every session begin a new epoch, so that clients, which may know more than what was restored, are\n" +
			"reset instead of holding something else than the server. Stop all servers before, and remove their journals. What\n" +
			"`parley storage backup` has written does not need it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.run(cmd, func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
				n, err := parley.RestartEpochs(ctx, cfg, log)
				fmt.Fprintf(cmd.OutOrStdout(), "%d sessions begin a new epoch\n", n)
				return err
			})
		},
	}
	s.add(cmd)
	return cmd
}

func resealCommand(environ []string) *cobra.Command {
	s := storageSettings{settings{environ: environ}}
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Encrypt all that is stored under the primary key",
		Long: "Reseal encrypts what was stored without encryption, or under an older key, while servers with the same keyset\n" +
			"run or not. It can be interrupted and begun again. Once it has succeeded, older keys are not needed any more.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.run(cmd, func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
				p := newProgress(cmd.ErrOrStderr())
				n, err := parley.ResealStorage(ctx, cfg, log, p.show)
				p.end()
				if err != nil && n == (chat.Counts{}) {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d sessions and %d messages were encrypted anew\n", n.Sessions, n.Messages)
				return err
			})
		},
	}
	s.add(cmd)
	return cmd
}

func exportCommand(environ []string) *cobra.Command {
	s := storageSettings{settings{environ: environ}}
	var user, output string
	cmd := &cobra.Command{
		Use:   "export --user ID",
		Short: "Print all that is stored of a user, as JSON lines",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if user == "" {
				return usageError("--user is required: the user's ID")
			}
			return s.run(cmd, func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
				w, closeOutput, err := openOutput(cmd, output)
				if err != nil {
					return err
				}
				n, err := parley.ExportUser(ctx, cfg, log, user, w)
				if err = errors.Join(err, closeOutput()); err != nil && output != "" {
					err = errors.Join(err, os.Remove(output)) // half of it would stand in the way of the next attempt
				} else if err == nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%d sessions, %d messages and %d usage records were exported\n", n.Sessions, n.Messages, n.Usage)
				}
				return err
			})
		},
	}
	s.add(cmd)
	cmd.Flags().StringVar(&user, "user", "", "the user's `ID`")
	cmd.Flags().StringVar(&output, "output", "", "the `FILE` to write, which may not exist; empty: standard output")
	return cmd
}

// openOutput opens a new file that only its owner can read; "" is standard output.
func openOutput(cmd *cobra.Command, path string) (w io.Writer, closeOutput func() error, err error) {
	if path == "" {
		return cmd.OutOrStdout(), func() error { return nil }, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return file, file.Close, nil
}

func eraseCommand(environ []string) *cobra.Command {
	s := storageSettings{settings{environ: environ}}
	var user string
	var yes bool
	cmd := &cobra.Command{
		Use:   "erase --user ID --yes",
		Short: "Remove all that is stored of a user, for good",
		Long: "Erase removes a user's sessions with their messages, and the records of what they cost. Backups are not touched.\n" +
			"A server that has one of the sessions open gives it up as soon as it stores something of it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case user == "":
				return usageError("--user is required: the user's ID")
			case !yes:
				return usageError("--yes is required: what is erased cannot be brought back")
			}
			return s.run(cmd, func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
				n, err := parley.EraseUser(ctx, cfg, log, user)
				if err != nil && n == 0 {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d sessions were erased\n", n)
				return err
			})
		},
	}
	s.add(cmd)
	cmd.Flags().StringVar(&user, "user", "", "the user's `ID`")
	cmd.Flags().BoolVar(&yes, "yes", false, "erase it")
	return cmd
}

// progressInterval is how often progress is told.
const progressInterval = 2 * time.Second

// progress tells a person who waits how far something has come.
type progress struct {
	w         io.Writer
	told      time.Time
	done, all chat.Counts
}

func newProgress(w io.Writer) *progress { return &progress{w: w, told: time.Now()} }

// show is called by one goroutine at a time.
func (p *progress) show(done, all chat.Counts) {
	p.done, p.all = done, all
	if time.Since(p.told) >= progressInterval {
		p.tell()
	}
}

func (p *progress) tell() {
	p.told = time.Now()
	fmt.Fprintf(p.w, "%d of %d sessions, %d of %d messages\n", p.done.Sessions, p.all.Sessions, p.done.Messages, p.all.Messages)
}

// end tells the last of it, if there was any.
func (p *progress) end() {
	if p.all != (chat.Counts{}) {
		p.tell()
	}
}
