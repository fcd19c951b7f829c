package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
)

const devTokenTTL = 12 * time.Hour

func devCommand(environ []string) *cobra.Command {
	s := settings{environ: environ}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try Parley: everything on this machine, with nothing configured",
		Long: "Dev serves on loopback only, with SQLite in ./parley-data, a throw-away secret, and Eliza as the model.\n" +
			"Beside her it offers what it finds: OPENAI_API_KEY and ANTHROPIC_API_KEY in the environment, and the models\n" +
			"of an Ollama on this machine. It prints the address of the chat page.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd, devDefaults(cmd.Context(), environ))
			if err != nil {
				return err
			}
			return dev(cmd, cfg)
		},
	}
	s.addForServing(cmd)
	return cmd
}

// devDefaults is a configuration that needs nothing, no file, no key and no service, and takes what is there.
func devDefaults(ctx context.Context, environ []string) config.Config {
	cfg := config.Default()
	cfg.Auth.JWTSecret = newSecret()
	cfg.LLM.Providers = []config.Provider{{ID: "eliza", Type: config.ProviderEliza}}
	cfg.LLM.Models = []config.Model{{ID: "eliza", Name: "Eliza", Targets: []string{"eliza/doctor"}}}
	discover(ctx, environ, &cfg.LLM)
	cfg.Storage.SQLite.Path = filepath.Join("parley-data", "parley.db")
	cfg.WebSocket.MaxConnections = 1000 // one machine's: no reason to warn of its limit of open files
	cfg.Log.Format = "text"
	return cfg
}

func dev(cmd *cobra.Command, cfg config.Config) error {
	for _, listener := range []struct{ key, flag, addr string }{
		{"server.addr", "--addr", cfg.Server.Addr},
		{"server.operations_addr", "--operations-addr", cfg.Server.OperationsAddr},
	} {
		if listener.addr != "" && !isLoopback(listener.addr) {
			return &config.Problem{
				Key:     listener.key,
				Problem: "parley dev serves this machine only, and " + listener.addr + " can be reached by others",
				Fix:     "give " + listener.flag + " an address like 127.0.0.1:8080, or use parley serve",
			}
		}
	}
	user := chat.User{ID: "dev", Name: "Developer", TokenID: chat.NewID()}
	token, err := auth.Sign(cfg.Auth.JWTSecret, user, cfg.Auth.Issuer, cfg.Auth.Audience, time.Now(), devTokenTTL)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Storage.SQLite.Path), 0o700); err != nil {
		return fmt.Errorf("create the folder of the database: %w", err)
	}
	same := func() (config.Config, error) { return cfg, nil } // nothing is configured that could have changed
	return serve(cmd, cfg, same, func(addr string) { welcome(cmd.OutOrStdout(), cfg, addr, token) })
}

// isLoopback reports whether only this machine can reach an address to listen on.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// welcome tells where the chat page is, and who answers there. The token stands in the fragment, which never reaches a
// server.
func welcome(w io.Writer, cfg config.Config, addr, token string) {
	scheme := "http"
	if cfg.Server.TLS.CertFile != "" {
		scheme = "https"
	}
	var models []string
	for _, m := range cfg.LLM.Models {
		models = append(models, m.ID+origin(cfg.LLM, m))
	}
	fmt.Fprintf(w, `
Parley is running. Open this address and chat:

  %s://%s%s/#token=%s

It is good for %d hours, on this machine. The conversations are kept in %s.
Models: %s.
Press Ctrl-C to stop.

`, scheme, addr, cfg.Server.PathPrefix, token, int(devTokenTTL.Hours()), filepath.Dir(cfg.Storage.SQLite.Path),
		strings.Join(models, ", "))
}

// newSecret makes a JWT secret: 52 characters of A-Z and 2-7, 260 bits. It needs no quotes anywhere.
func newSecret() string { return rand.Text() + rand.Text() }
