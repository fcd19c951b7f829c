package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/config"
)

func serveCommand(environ []string) *cobra.Command {
	s := settings{environ: environ}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve, for production: every key is checked before anything listens",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd, config.Default())
			if err != nil {
				return err
			}
			return serve(cmd, cfg, func() (config.Config, error) { return s.load(cmd, config.Default()) }, nil)
		},
	}
	s.addForServing(cmd)
	return cmd
}

// serve runs a server until the command's context ends or a signal comes. On SIGHUP it takes what reread gives. It calls
// ready, unless that is nil, with the address of the public listener.
func serve(cmd *cobra.Command, cfg config.Config, reread func() (config.Config, error), ready func(addr string)) error {
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	hangups := make(chan os.Signal, 1) // from here on none ends the process; those that come early wait
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	log, level := newLogger(cfg.Log, cmd.ErrOrStderr())
	stdlog.SetFlags(0)
	stdlog.SetOutput(libraries{log})
	server, err := parley.New(cfg, log)
	if err != nil {
		return err
	}
	stopReloading := onEach(hangups, func() { reload(server, reread, log, level) })
	defer stopReloading()
	return server.Run(ctx, ready)
}

// reload has the server take what may change while it runs. A configuration that is not valid changes nothing.
func reload(server *parley.Server, reread func() (config.Config, error), log *slog.Logger, level *slog.LevelVar) {
	cfg, err := reread()
	if err != nil {
		log.Error("the configuration was not taken over: it is not valid", "error", err)
		return
	}
	level.Set(levelOf(cfg.Log))
	server.Reload(cfg)
}

// onEach calls f for each signal that comes, one after another, until stop is called.
func onEach(signals <-chan os.Signal, f func()) (stop func()) {
	stopped := make(chan struct{})
	var calling sync.WaitGroup
	calling.Go(func() {
		for {
			select {
			case <-signals:
				f()
			case <-stopped:
				return
			}
		}
	})
	return func() {
		close(stopped)
		calling.Wait()
	}
}

// untilSignal gives a context that ends with the first SIGINT or SIGTERM; the second one ends the process at once.
// stop gives the signals their usual meaning back.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	stopped := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for first := true; ; first = false {
			select {
			case <-signals:
				if !first {
					os.Exit(exitFailed)
				}
				cancel()
			case <-stopped:
				return
			}
		}
	})
	return ctx, func() {
		signal.Stop(signals)
		close(stopped)
		watching.Wait()
		cancel()
	}
}

func checkCommand(environ []string) *cobra.Command {
	s := settings{environ: environ}
	var health bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and that storage can be reached; or whether the running server is ready",
		Long: `Check does what serve does before it listens. It exits with 2 for the configuration, with 1 for storage and for keys of
tokens that cannot be read.

With --health it asks the server that runs with this configuration for /readyz, at server.operations_addr, and exits
with 0 if that is ready, else with 1, within three seconds. It needs no secrets.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd, config.Default())
			if _, isUsage := errors.AsType[usageError](err); health && !isUsage {
				if err := checkHealth(cmd.Context(), cfg, err); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "ready")
				return nil
			}
			if err != nil {
				return err
			}
			if err := parley.Check(cmd.Context(), cfg); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return nil
		},
	}
	s.addForServing(cmd)
	cmd.Flags().BoolVar(&health, "health", false, "ask the running server whether it is ready instead")
	return cmd
}
