package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/parley-chat/parley/config"
)

// settings are the flags by which a command gets its configuration.
type settings struct {
	environ []string
	file    string
	set     []string
}

// keyFlags are the flags that stand for a key.
var keyFlags = []struct{ flag, key, usage string }{
	{"addr", "server.addr", "`HOST:PORT` of the public listener"},
	{"operations-addr", "server.operations_addr", "`HOST:PORT` of health and metrics; empty: none"},
	{"log-level", "log.level", "debug, info, warn or error"},
}

// add gives cmd the flags that every command with a configuration has.
func (s *settings) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.file, "config", "", "the configuration `FILE` (default $"+config.EnvFile+")")
	cmd.Flags().StringArrayVar(&s.set, "set", nil, "set a `KEY=VALUE` over file and environment; can be repeated")
}

// addForServing gives cmd the flags of those commands that serve, or check what would be served, too.
func (s *settings) addForServing(cmd *cobra.Command) {
	s.add(cmd)
	for _, f := range keyFlags {
		cmd.Flags().String(f.flag, "", f.usage)
	}
}

// load makes the configuration. Its error lists all problems; the configuration is what could be read.
func (s *settings) load(cmd *cobra.Command, defaults config.Config) (config.Config, error) {
	overrides := map[string]any{}
	for _, entry := range s.set {
		key, value, ok := strings.Cut(entry, "=")
		if !ok || key == "" {
			return config.Config{}, usageError("--set needs KEY=VALUE")
		}
		overrides[key] = value
	}
	for _, f := range keyFlags {
		if flag := cmd.Flags().Lookup(f.flag); flag != nil && flag.Changed {
			overrides[f.key] = flag.Value.String()
		}
	}
	file := s.file
	if !cmd.Flags().Changed("config") {
		file = lookup(s.environ, config.EnvFile)
	}
	return config.LoadOver(defaults, file, s.environ, overrides)
}

// lookup finds a variable in environ. The last one of a name counts, as for a process that is started with environ.
func lookup(environ []string, name string) string {
	found := ""
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			found = value
		}
	}
	return found
}

// newLogger makes a logger of a valid configuration. Its level may be changed later.
func newLogger(cfg config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(levelOf(cfg))
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options)), level
	}
	return slog.New(slog.NewJSONHandler(w, options)), level
}

func levelOf(cfg config.Log) (level slog.Level) {
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		panic(err) // Validate knows the levels
	}
	return level
}

// libraries is where those libraries write that have no logger of their own, such as net/http's client.
type libraries struct{ log *slog.Logger }

// Write logs a line, without what others sent: that may be the text of a conversation.
func (l libraries) Write(line []byte) (int, error) {
	said, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	l.log.Warn("a library has something to say", "text", fmt.Sprintf("%.500s", said))
	return len(line), nil
}
