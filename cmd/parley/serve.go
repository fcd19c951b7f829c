package main

import (
	"context"
	"fmt"
	stdlog "log"
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
			return serve(cmd, cfg, nil)
		},
	}
	s.addForServing(cmd)
	return cmd
}

// serve runs a server until the command's context ends or a signal comes. It calls ready, unless that is nil, with the
// address of the public listener.
func serve(cmd *cobra.Command, cfg config.Config, ready func(addr string)) error {
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	log := newLogger(cfg.Log, cmd.ErrOrStderr())
	stdlog.SetFlags(0)
	stdlog.SetOutput(libraries{log})
	server, err := parley.New(cfg, log)
	if err != nil {
		return err
	}
	return server.Run(ctx, ready)
}

// untilSignal gives a context that ends with the first SIGINT or SIGTERM; the second one ends the process at once.
// SIGHUP does nothing meanwhile. stop gives the signals their usual meaning back.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP)
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
		signal.Reset(syscall.SIGHUP)
		close(stopped)
		watching.Wait()
		cancel()
	}
}

func checkCommand(environ []string) *cobra.Command {
	s := settings{environ: environ}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and that storage can be reached",
		Long:  "Check does what serve does before it listens. It exits with 2 for the configuration, with 1 for storage and for keys of tokens that cannot be read.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd, config.Default())
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
	return cmd
}
