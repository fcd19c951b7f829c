package config_test

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/config"
)

func validConfig() config.Config {
	cfg := config.Default()
	cfg.Auth.JWTSecret = strongSecret
	cfg.LLM.Providers = []config.Provider{
		{ID: "doctor", Type: config.ProviderEliza},
		{ID: "up", Type: config.ProviderOpenAI, BaseURL: "https://u:hunter2@api.example/v1"},
	}
	cfg.LLM.Models = []config.Model{{ID: "m", Targets: []string{"doctor/x", "up/vendor/model:7b"}}}
	return cfg
}

func TestR19_4_RequiredFields(t *testing.T) {
	wantProblems(t, config.Default().Validate(), "auth.jwt_secret", "llm.providers", "llm.models")
	cfg := validConfig()
	cfg.Server.Addr = ""
	cfg.Storage.SQLite.Path = " "
	cfg.LLM.Providers[0].ID = ""
	cfg.LLM.Providers[1].BaseURL = ""
	cfg.LLM.Models = append(cfg.LLM.Models, config.Model{ID: "n"})
	wantProblems(t, cfg.Validate(), "server.addr", "storage.sqlite.path", "llm.providers[0].id",
		"llm.providers[1].base_url", "llm.models[0].targets[0]", "llm.models[1].targets")
}

// Each case breaks a valid configuration in one place.
func TestR19_5_ValuesOutOfRange(t *testing.T) {
	cases := map[string][]func(*config.Config){
		"server.addr": {
			func(c *config.Config) { c.Server.Addr = "localhost" },
			func(c *config.Config) { c.Server.Addr = "localhost:http" },
			func(c *config.Config) { c.Server.Addr = ":65536" },
			func(c *config.Config) { c.Server.Addr = "::1:80" },
		},
		"server.operations_addr": {
			func(c *config.Config) { c.Server.OperationsAddr = "9090" },
			func(c *config.Config) { c.Server.OperationsAddr = c.Server.Addr },
			func(c *config.Config) { c.Server.OperationsAddr = ":8080" },
		},
		"server.path_prefix": {
			func(c *config.Config) { c.Server.PathPrefix = "/" },
			func(c *config.Config) { c.Server.PathPrefix = "chat" },
			func(c *config.Config) { c.Server.PathPrefix = "/chat/" },
			func(c *config.Config) { c.Server.PathPrefix = "/a/../b" },
			func(c *config.Config) { c.Server.PathPrefix = "/{x}" },
		},
		"server.shutdown_timeout": {func(c *config.Config) { c.Server.ShutdownTimeout = 0 }},
		"server.trusted_proxies[0]": {
			func(c *config.Config) { c.Server.TrustedProxies = make([]netip.Prefix, 1) },
			func(c *config.Config) {
				c.Server.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}
			},
		},
		"server.tls": {
			func(c *config.Config) { c.Server.TLS.CertFile = "x" },
			func(c *config.Config) { c.Server.TLS.KeyFile = "x" },
		},
		"websocket.allowed_origins[0]": {
			func(c *config.Config) { c.WebSocket.AllowedOrigins = []string{"https://a.example/"} },
			func(c *config.Config) { c.WebSocket.AllowedOrigins = []string{"a.example"} },
			func(c *config.Config) { c.WebSocket.AllowedOrigins = []string{"null"} },
			func(c *config.Config) { c.WebSocket.AllowedOrigins = []string{"https://*"} },
			func(c *config.Config) { c.WebSocket.AllowedOrigins = []string{"https://*.co.uk"} },
			func(c *config.Config) { c.WebSocket.AllowedOrigins = []string{"https://*.github.io"} },
		},
		"ui.frame_ancestors[0]": {
			func(c *config.Config) { c.UI.FrameAncestors = []string{"https://x; script-src *"} },
		},
		"websocket.max_message_bytes": {
			func(c *config.Config) { c.WebSocket.MaxMessageBytes = 1023 },
			func(c *config.Config) { c.WebSocket.MaxMessageBytes = 16<<20 + 1 },
		},
		"websocket.max_connections":          {func(c *config.Config) { c.WebSocket.MaxConnections = 0 }},
		"websocket.max_connections_per_user": {func(c *config.Config) { c.WebSocket.MaxConnectionsPerUser = 0 }},
		"websocket.max_connections_per_address": {
			func(c *config.Config) { c.WebSocket.MaxConnectionsPerAddress = -1 },
		},
		"websocket.ping_interval": {
			func(c *config.Config) { c.WebSocket.PingInterval = -1 },
			func(c *config.Config) { c.WebSocket.PingInterval = 2 * time.Hour },
		},
		"websocket.pong_timeout":     {func(c *config.Config) { c.WebSocket.PongTimeout = 0 }},
		"websocket.write_timeout":    {func(c *config.Config) { c.WebSocket.WriteTimeout = 0 }},
		"session.idle_timeout":       {func(c *config.Config) { c.Session.IdleTimeout = 0 }},
		"session.grace_period":       {func(c *config.Config) { c.Session.GracePeriod = 0 }},
		"session.cleanup_interval":   {func(c *config.Config) { c.Session.CleanupInterval = 0 }},
		"session.warn_threshold":     {func(c *config.Config) { c.Session.WarnThreshold = 0 }},
		"session.max_response_times": {func(c *config.Config) { c.Session.MaxResponseTimes = 0 }},
		"llm.stream_timeout":         {func(c *config.Config) { c.LLM.StreamTimeout = 0 }},
		"llm.first_token_timeout": {
			func(c *config.Config) { c.LLM.FirstTokenTimeout = 0 },
			func(c *config.Config) { c.LLM.FirstTokenTimeout = time.Hour },
		},
		"llm.idle_timeout":   {func(c *config.Config) { c.LLM.IdleTimeout = time.Hour }},
		"llm.history_tokens": {func(c *config.Config) { c.LLM.HistoryTokens = 0 }},
		"llm.default_model":  {func(c *config.Config) { c.LLM.DefaultModel = "other" }},
		"llm.providers[1].id": {func(c *config.Config) {
			c.LLM.Providers[1].ID = "doctor"
			c.LLM.Models[0].Targets = []string{"doctor/x"}
		}},
		"llm.providers[0].type": {func(c *config.Config) { c.LLM.Providers[0].Type = "elisa" }},
		"llm.providers[1].base_url": {
			func(c *config.Config) { c.LLM.Providers[1].BaseURL = "ftp://x" },
			func(c *config.Config) { c.LLM.Providers[1].BaseURL = "api.example" },
			func(c *config.Config) { c.LLM.Providers[1].BaseURL = "https://api.example/v1/chat/completions/" },
		},
		"llm.models[0].id": {func(c *config.Config) { c.LLM.Models[0].ID = "a b" }},
		"llm.models[1].id": {
			func(c *config.Config) { c.LLM.Models = append(c.LLM.Models, c.LLM.Models[0]) },
		},
		"llm.models[0].targets[0]": {
			func(c *config.Config) { c.LLM.Models[0].Targets[0] = "doctor" },
			func(c *config.Config) { c.LLM.Models[0].Targets[0] = "nobody/x" },
		},
		"llm.models[0].price.input": {
			func(c *config.Config) { c.LLM.Models[0].Price.Input = math.NaN() },
			func(c *config.Config) { c.LLM.Models[0].Price.Input = -1 },
		},
		"llm.models[0].price.output":      {func(c *config.Config) { c.LLM.Models[0].Price.Output = 1e9 }},
		"llm.models[0].temperature":       {func(c *config.Config) { c.LLM.Models[0].Temperature = new(2.5) }},
		"llm.models[0].max_output_tokens": {func(c *config.Config) { c.LLM.Models[0].MaxOutputTokens = -1 }},
		"llm.models[0].system_prompt": {
			func(c *config.Config) { c.LLM.Models[0].SystemPrompt = "{{.Metadata.plan" },
			func(c *config.Config) { c.LLM.Models[0].SystemPrompt = "{{.User}}" },
		},
		"llm.system_prompt":         {func(c *config.Config) { c.LLM.SystemPrompt = "{{end}}" }},
		"llm.title_model":           {func(c *config.Config) { c.LLM.TitleModel = "other" }},
		"llm.connect_timeout":       {func(c *config.Config) { c.LLM.ConnectTimeout = 0 }},
		"llm.hedge_after":           {func(c *config.Config) { c.LLM.HedgeAfter = -1 }},
		"llm.retry.max_attempts":    {func(c *config.Config) { c.LLM.Retry.MaxAttempts = 0 }},
		"llm.retry.initial_backoff": {func(c *config.Config) { c.LLM.Retry.InitialBackoff = time.Minute }},
		"llm.retry.max_backoff":     {func(c *config.Config) { c.LLM.Retry.MaxBackoff = 0 }},
		"llm.breaker.failures":      {func(c *config.Config) { c.LLM.Breaker.Failures = 0 }},
		"llm.breaker.delay":         {func(c *config.Config) { c.LLM.Breaker.Delay = 0 }},
		"llm.budget.tokens":         {func(c *config.Config) { c.LLM.Budget.Tokens = -1 }},
		"llm.budget.window":         {func(c *config.Config) { c.LLM.Budget.Window = 0 }},
		"llm.moderation.url":        {func(c *config.Config) { c.LLM.Moderation.URL = "moderation.internal" }},
		"llm.moderation.timeout":    {func(c *config.Config) { c.LLM.Moderation.Timeout = 0 }},
		"llm.providers[1].proxy":    {func(c *config.Config) { c.LLM.Providers[1].Proxy = "proxy.example:3128" }},
		"llm.providers[1].api_key": {
			func(c *config.Config) { c.LLM.Providers[1].APIKey = "sk-a\nsk-b" },
			func(c *config.Config) { c.LLM.Providers[1].APIKey = "<the key of your account>" },
		},
		"llm.moderation.api_key": {func(c *config.Config) { c.LLM.Moderation.APIKey = "<its key>" }},
		"llm.providers[1].first_token_timeout": {
			func(c *config.Config) { c.LLM.Providers[1].FirstTokenTimeout = -1 },
			func(c *config.Config) { c.LLM.Providers[1].FirstTokenTimeout = time.Hour },
		},
		"llm.providers[1].idle_timeout":    {func(c *config.Config) { c.LLM.Providers[1].IdleTimeout = time.Hour }},
		"llm.providers[1].connect_timeout": {func(c *config.Config) { c.LLM.Providers[1].ConnectTimeout = time.Hour }},
		"llm.providers[1].stream_timeout":  {func(c *config.Config) { c.LLM.Providers[1].StreamTimeout = 48 * time.Hour }},
		"storage.driver":                   {func(c *config.Config) { c.Storage.Driver = "mysql" }},
		"storage.retry.max_attempts":       {func(c *config.Config) { c.Storage.Retry.MaxAttempts = 0 }},
		"storage.retry.initial_backoff": {
			func(c *config.Config) { c.Storage.Retry.InitialBackoff = 3 * time.Second },
		},
		"storage.retry.max_backoff":         {func(c *config.Config) { c.Storage.Retry.MaxBackoff = 0 }},
		"storage.checkpoint_interval":       {func(c *config.Config) { c.Storage.CheckpointInterval = 0 }},
		"storage.journal.max_bytes":         {func(c *config.Config) { c.Storage.Journal.MaxBytes = 1 }},
		"storage.retention":                 {func(c *config.Config) { c.Storage.Retention = -1 }},
		"storage.lease_timeout":             {func(c *config.Config) { c.Storage.LeaseTimeout = time.Second - 1 }},
		"rate_limit.messages.limit":         {func(c *config.Config) { c.RateLimit.Messages.Limit = 0 }},
		"rate_limit.unauthenticated.window": {func(c *config.Config) { c.RateLimit.Unauthenticated.Window = 0 }},
		"rate_limit.requests.window":        {func(c *config.Config) { c.RateLimit.Requests.Window = 0 }},
		"rate_limit.cleanup_interval":       {func(c *config.Config) { c.RateLimit.CleanupInterval = 0 }},
		"log.level":                         {func(c *config.Config) { c.Log.Level = "" }},
		"log.format":                        {func(c *config.Config) { c.Log.Format = "xml" }},
	}
	if err := validConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Sorted(maps.Keys(cases)) {
		for i, breakIt := range cases[key] {
			cfg := validConfig()
			breakIt(&cfg)
			if !t.Run(key, func(t *testing.T) { wantProblems(t, cfg.Validate(), key) }) {
				t.Logf("case %d", i)
			}
		}
	}
}

func TestTheEndsOfARangeBelongToIt(t *testing.T) {
	cfg := validConfig()
	cfg.Server.Addr, cfg.Server.OperationsAddr = "[::1]:0", ":0"
	cfg.Server.PathPrefix = "/a/b-c.d_e~f"
	cfg.WebSocket.MaxMessageBytes = 1 << 10
	cfg.WebSocket.PingInterval = time.Millisecond
	cfg.LLM.IdleTimeout = cfg.LLM.StreamTimeout
	cfg.LLM.HistoryTokens = 1
	cfg.Storage.Retry.MaxBackoff = cfg.Storage.Retry.InitialBackoff
	cfg.UI.FrameAncestors = []string{"'self'", "https://*.example.com"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.WebSocket.MaxMessageBytes = 16 << 20
	cfg.Server.OperationsAddr = ""
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestR18_2_AdminsAreLimitedMoreStrictly(t *testing.T) {
	cfg := validConfig()
	for rate, stricter := range map[config.Rate]bool{
		{Limit: 239, Window: time.Minute}:                   true,
		{Limit: 240, Window: time.Minute}:                   false,
		{Limit: 5, Window: time.Second}:                     false,
		{Limit: 14_000, Window: time.Hour}:                  true,
		{Limit: 1_000_000, Window: 24 * 3600 * time.Second}: false,
	} {
		cfg.RateLimit.Admin = rate
		if stricter {
			wantProblems(t, cfg.Validate())
		} else {
			wantProblems(t, cfg.Validate(), "rate_limit.admin")
		}
	}
}

func TestOneKeyVerifiesTokens(t *testing.T) {
	cfg := validConfig()
	cfg.Auth.JWTSecret, cfg.Auth.JWKSURL = "", "https://id.example/jwks.json"
	wantProblems(t, cfg.Validate())
	cfg.Auth.JWKSURL = "id.example/jwks.json"
	wantProblems(t, cfg.Validate(), "auth.jwks_url")
	cfg.Auth.JWTSecret, cfg.Auth.JWKSURL = strongSecret, "https://id.example/jwks.json"
	wantProblems(t, cfg.Validate(), "auth")
}

func TestThePreviousSecret(t *testing.T) {
	const previous = "q7ZJ3vT9mXc2RkW8yLhN4sDgB6fPeUaV"
	for name, c := range map[string]struct {
		secret, previous string
		keys             []string
		says             string
	}{
		"strong":      {strongSecret, previous, nil, ""},
		"short":       {strongSecret, previous[:31], []string{"auth.previous_jwt_secret"}, "31 characters"},
		"placeholder": {strongSecret, "changemechangemechangemechangeme", []string{"auth.previous_jwt_secret"}, "placeholder"},
		"the same":    {strongSecret, strongSecret, []string{"auth.previous_jwt_secret"}, "the same"},
		"alone":       {"", previous, []string{"auth.jwt_secret", "auth.previous_jwt_secret"}, "comes after it"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := validConfig()
			cfg.Auth.JWTSecret, cfg.Auth.PreviousJWTSecret = c.secret, c.previous
			err := cfg.Validate()
			found := wantProblems(t, err, c.keys...)
			if p := found["auth.previous_jwt_secret"]; p != nil && !strings.Contains(p.Problem, c.says) {
				t.Errorf("got %v", p)
			}
			if err != nil && strings.Contains(err.Error(), c.previous) {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
	cfg := validConfig()
	cfg.Auth = config.Auth{JWKSURL: "https://id.example/jwks.json", PreviousJWTSecret: previous}
	wantProblems(t, cfg.Validate(), "auth.previous_jwt_secret")
}

func TestThePreviousSecretComesFromAFile(t *testing.T) {
	const previous = "q7ZJ3vT9mXc2RkW8yLhN4sDgB6fPeUaV"
	cfg, err := config.Load(write(t, valid), []string{"PARLEY_AUTH_PREVIOUS_JWT_SECRET_FILE=" + write(t, previous+"\n")}, nil)
	if err != nil || cfg.Auth.PreviousJWTSecret != previous || strings.Contains(cfg.Redacted(), previous) {
		t.Errorf("%v, %s", err, cfg.Redacted())
	}
}

func TestR16_4_NoOriginIsAllowedByDefault(t *testing.T) {
	if w := config.Default().WebSocket; len(w.AllowedOrigins) > 0 || w.AllowAnyOrigin {
		t.Errorf("got %+v", w)
	}
}

func TestParseOrigin(t *testing.T) {
	for text, want := range map[string]config.Origin{
		"https://A.example":          {Scheme: "https", Host: "a.example", Port: "443"},
		"HTTP://localhost:3000":      {Scheme: "http", Host: "localhost", Port: "3000"},
		"https://a.example:443":      {Scheme: "https", Host: "a.example", Port: "443"},
		"http://[::1]:8080":          {Scheme: "http", Host: "::1", Port: "8080"},
		"http://[0:0::1]":            {Scheme: "http", Host: "::1", Port: "80"},
		"https://*.example.com:8443": {Scheme: "https", Host: "example.com", Port: "8443", Subdomains: true},
		"capacitor://localhost":      {Scheme: "capacitor", Host: "localhost"},
	} {
		if got, err := config.ParseOrigin(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "*", "null", "https://", "https://a/", "https://a/b", "https://a?b", "https://u@a",
		"https://a:", "https://a:0", "https://a:080", "https://a:99999", "https://*.com", "http://*.example.com", "https://a.*.com",
		"https://*", "https://.a", "https://a..b", "https://é.example", "https://a b", "//a", "https://[::1", "https://[a]",
		"https://[127.0.0.1]", "https://::1", "javascript:alert(1)"} {
		if got, err := config.ParseOrigin(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestSplitTarget(t *testing.T) {
	if p, m, ok := config.SplitTarget("openrouter/meta/llama"); p != "openrouter" || m != "meta/llama" || !ok {
		t.Error(p, m, ok)
	}
	for _, bad := range []string{"", "a", "/a", "a/"} {
		if _, _, ok := config.SplitTarget(bad); ok {
			t.Errorf("%q is a target", bad)
		}
	}
}
