package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/config"
)

const strongSecret = "MHCBZVZB4XQIBVVRPZSWRFXKPRNQ3XGD7Y2KAEF5LJUWTVCSO6QD"

const valid = `
auth: {jwt_secret: ` + strongSecret + `}
llm:
  providers: [{id: doctor, type: eliza}]
  models: [{id: eliza, name: Eliza, targets: [doctor/eliza]}]
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "parley.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantProblems fails unless err has exactly one problem for each key, and returns them by key.
func wantProblems(t *testing.T, err error, keys ...string) map[string]*config.Problem {
	t.Helper()
	found := map[string]*config.Problem{}
	var got []string
	for _, p := range config.Problems(err) {
		found[p.Key] = p
		got = append(got, p.Key)
		if strings.ContainsAny(p.Error(), "\n\r") || p.Problem == "" || p.Fix == "" {
			t.Errorf("not a problem on one line: %q", p.Error())
		}
	}
	slices.Sort(got)
	slices.Sort(keys)
	if !slices.Equal(got, keys) {
		t.Errorf("problems with %q, want %q:\n%v", got, keys, err)
	}
	return found
}

func TestR19_1_AValidConfigurationLoads(t *testing.T) {
	cfg, err := config.Load(write(t, valid), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Auth.JWTSecret = strongSecret
	want.LLM.Providers = []config.Provider{{ID: "doctor", Type: config.ProviderEliza}}
	want.LLM.Models = []config.Model{{ID: "eliza", Name: "Eliza", Targets: []string{"doctor/eliza"}}}
	if cfg.Redacted() != want.Redacted() || cfg.Auth.JWTSecret != strongSecret {
		t.Errorf("got %s", cfg.Redacted())
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEachLayerGoesOverTheOnesBeforeIt(t *testing.T) {
	file := write(t, valid+"session: {warn_threshold: 2, max_response_times: 2, idle_timeout: 2s}\n")
	environ := []string{"PARLEY_SESSION_MAX_RESPONSE_TIMES=3", "PARLEY_SESSION_IDLE_TIMEOUT=3s"}
	cfg, err := config.Load(file, environ, map[string]any{"session.idle_timeout": "4s"})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default().Session
	want.WarnThreshold, want.MaxResponseTimes, want.IdleTimeout = 2, 3, 4*time.Second
	if cfg.Session != want {
		t.Errorf("got %+v, want %+v", cfg.Session, want)
	}
}

func TestValuesOfAllTypes(t *testing.T) {
	cases := map[string]struct {
		key, text string
		get       func(config.Config) any
		want      any
	}{
		"duration": {"llm.stream_timeout", "90s", func(c config.Config) any { return c.LLM.StreamTimeout }, 90 * time.Second},
		"zero":     {"storage.retention", "0", func(c config.Config) any { return c.Storage.Retention }, time.Duration(0)},
		"size": {"storage.journal.max_bytes", "64KiB",
			func(c config.Config) any { return c.Storage.Journal.MaxBytes }, config.ByteSize(65536)},
		"plain size": {"websocket.max_message_bytes", "2048",
			func(c config.Config) any { return c.WebSocket.MaxMessageBytes }, config.ByteSize(2048)},
		"bool":  {"storage.journal.sync", "true", func(c config.Config) any { return c.Storage.Journal.Sync }, true},
		"int":   {"llm.history_tokens", "123", func(c config.Config) any { return c.LLM.HistoryTokens }, 123},
		"text":  {"llm.system_prompt", `" hi, all "`, func(c config.Config) any { return c.LLM.SystemPrompt }, " hi, all "},
		"empty": {"server.operations_addr", `""`, func(c config.Config) any { return c.Server.OperationsAddr }, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			section, key, _ := strings.Cut(c.key, ".")
			text := "{" + strings.ReplaceAll(key, ".", ": {") + ": " + c.text + strings.Repeat("}", strings.Count(key, ".")+1)
			file := valid + section + ": " + text
			if section == "llm" {
				file = strings.Replace(valid, "llm:", "llm:\n  "+key+": "+c.text, 1)
			}
			variable := "PARLEY_" + strings.ToUpper(strings.ReplaceAll(c.key, ".", "_")) + "=" + strings.Trim(c.text, `"`)
			for source, load := range map[string]func() (config.Config, error){
				"file":        func() (config.Config, error) { return config.Load(write(t, file), nil, nil) },
				"environment": func() (config.Config, error) { return config.Load(write(t, valid), []string{variable}, nil) },
			} {
				cfg, err := load()
				if err != nil {
					t.Fatalf("from the %s: %v", source, err)
				}
				if got := c.get(cfg); got != c.want {
					t.Errorf("from the %s: got %v, want %v", source, got, c.want)
				}
			}
		})
	}
}

func TestListsInTheEnvironment(t *testing.T) {
	cfg, err := config.Load(write(t, valid), []string{
		"PARLEY_WEBSOCKET_ALLOWED_ORIGINS=https://a.example, https://*.b.example ,",
		"PARLEY_SERVER_TRUSTED_PROXIES=10.0.0.0/8,fd00::/8",
		"PARLEY_UI_FRAME_ANCESTORS=",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.WebSocket.AllowedOrigins; !slices.Equal(got, []string{"https://a.example", "https://*.b.example"}) {
		t.Errorf("origins %q", got)
	}
	if got := cfg.Server.TrustedProxies; len(got) != 2 || got[1].String() != "fd00::/8" {
		t.Errorf("proxies %v", got)
	}
}

func TestR19_3_AllProblemsAreReportedAtOnce(t *testing.T) {
	file := write(t, `
server: {addr: nowhere, shutdown_timeout: soon, path_prefix: chat/}
auth: {jwt_secret: short}
websocket: {max_message_bytes: 12, pingg_interval: 5s, allowed_origins: ["*"]}
storage: 5
llm: {providers: [{id: a, type: eliza, colour: red}], models: [{id: m, targets: [b/x]}]}
log: {level: loud}
`)
	_, err := config.Load(file, []string{"PARLEY_SESSION_WARN_THRESHOLD=many", "PARLEY_LOGLEVEL=info"},
		map[string]any{"ui.enabled": "maybe"})
	found := wantProblems(t, err, "server.addr", "server.shutdown_timeout", "server.path_prefix", "auth.jwt_secret",
		"websocket.max_message_bytes", "websocket.pingg_interval", "websocket.allowed_origins[0]", "storage",
		"llm.providers[0].colour", "llm.models[0].targets[0]", "log.level", "session.warn_threshold", "PARLEY_LOGLEVEL",
		"ui.enabled")
	for key, want := range map[string]string{
		"websocket.pingg_interval":     "websocket.ping_interval",
		"PARLEY_LOGLEVEL":              "PARLEY_LOG_LEVEL",
		"session.warn_threshold":       "PARLEY_SESSION_WARN_THRESHOLD",
		"server.shutdown_timeout":      "30s",
		"websocket.allowed_origins[0]": "websocket.allow_any_origin",
		"auth.jwt_secret":              "parley keygen",
		"websocket.max_message_bytes":  "from 1KiB to 16MiB",
	} {
		if p := found[key]; p == nil || !strings.Contains(p.Error(), want) {
			t.Errorf("%s: %v does not say %q", key, p, want)
		}
	}
	if p := (*config.Problem)(nil); !errors.As(err, &p) {
		t.Error("the error has no Problem in its tree")
	}
}

func TestAnUnknownKeyNamesTheNearest(t *testing.T) {
	for text, want := range map[string]string{
		"websockets: {ping_interval: 1s}": "did you mean websocket?",
		"ping_interval: 1s":               "did you mean websocket.ping_interval?",
		"server: {adr: x}":                "did you mean server.addr?",
		"storage: {sqlite: {pth: x}}":     "did you mean storage.sqlite.path?",
		"server.addr: x":                  `below a line that says "server:"`,
	} {
		_, err := config.Load(write(t, valid+text), nil, nil)
		if len(config.Problems(err)) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestVariablesThatAreNotParleysConfiguration(t *testing.T) {
	_, err := config.Load(write(t, valid), []string{
		"HOME=/", "PARLEY_CONFIG=x", "PARLEY_TEST_MONGO_URI=y",
		// What Kubernetes sets in every pod beside a service called parley, or parley-admin.
		"PARLEY_SERVICE_HOST=10.0.0.1", "PARLEY_SERVICE_PORT=80", "PARLEY_SERVICE_PORT_HTTP=80", "PARLEY_PORT=tcp://10.0.0.1:80",
		"PARLEY_PORT_80_TCP=tcp://10.0.0.1:80", "PARLEY_PORT_80_TCP_ADDR=10.0.0.1", "PARLEY_ADMIN_SERVICE_HOST=10.0.0.2",
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestSecretsFromFilesAndVariables(t *testing.T) {
	withoutSecret := strings.Replace(valid, "auth: {jwt_secret: "+strongSecret+"}", "", 1)
	secretFile := write(t, strongSecret+"\n")
	environ := []string{"PARLEY_AUTH_JWT_SECRET_FILE=" + secretFile, "PARLEY_AUTH_JWT_SECRET=", "KEY_OF_B=from-env"}
	file := strings.Replace(withoutSecret, "[{id: doctor, type: eliza}]", `
    - {id: doctor, type: eliza}
    - {id: a, type: openai, base_url: "http://127.0.0.1:1", api_key_file: "`+write(t, "from-file\n")+`"}
    - {id: b, type: openai, base_url: "http://127.0.0.1:1", api_key_env: KEY_OF_B}
    - {id: c, type: openai, base_url: "http://127.0.0.1:1", api_key_env: KEY_OF_B, api_key: itself}`, 1)
	cfg, err := config.Load(write(t, file), environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Auth.JWTSecret != strongSecret {
		t.Error("the secret is not what the file holds without its newline")
	}
	for i, want := range []string{"", "from-file", "from-env", "itself"} {
		if got := cfg.LLM.Providers[i].APIKey; got != want {
			t.Errorf("provider %d has the key %q, want %q", i, got, want)
		}
	}
}

func TestR06_4_AMissingSecretIsAProblem(t *testing.T) {
	provider := func(rest string) string {
		return strings.Replace(valid, "{id: doctor, type: eliza}",
			`{id: doctor, type: openai, base_url: "http://127.0.0.1:1", `+rest+"}", 1)
	}
	noAuth := strings.Replace(valid, "auth: {jwt_secret: "+strongSecret+"}", "", 1)
	type keys []string
	for name, c := range map[string]struct {
		file    string
		environ []string
		want    keys
	}{
		"none": {noAuth, nil, keys{"auth.jwt_secret"}},
		"both forms": {noAuth, []string{"PARLEY_AUTH_JWT_SECRET=" + strongSecret, "PARLEY_AUTH_JWT_SECRET_FILE=/x"},
			keys{"auth.jwt_secret"}},
		"no such file":     {noAuth, []string{"PARLEY_AUTH_JWT_SECRET_FILE=/no/such/file"}, keys{"auth.jwt_secret"}},
		"empty file":       {noAuth, []string{"PARLEY_AUTH_JWT_SECRET_FILE=" + os.DevNull}, keys{"auth.jwt_secret"}},
		"no variable":      {provider("api_key_env: NOT_THERE"), nil, keys{"llm.providers[0].api_key_env"}},
		"no key file":      {provider("api_key_file: /no/such/file"), nil, keys{"llm.providers[0].api_key_file"}},
		"no CA file":       {provider("ca_file: /no/such/file"), nil, keys{"llm.providers[0].ca_file"}},
		"key and key file": {provider("api_key_file: /x, api_key: y"), nil, keys{"llm.providers[0]"}},
		"two ways":         {valid, []string{"PARLEY_AUTH_JWT_PUBLIC_KEY_FILE=" + os.DevNull}, keys{"auth"}},
		"no public key": {noAuth, []string{"PARLEY_AUTH_JWT_PUBLIC_KEY_FILE=/no/such/file"},
			keys{"auth.jwt_public_key_file"}},
		"no URI": {valid + "storage: {driver: mongodb}", nil, keys{"storage.mongodb.uri"}},
		"no keyset": {valid + "storage: {encryption: {keyset_file: /no/such/file}}", nil,
			keys{"storage.encryption.keyset_file"}},
		"nothing": {"", nil, keys{"auth.jwt_secret", "llm.providers", "llm.models"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(write(t, c.file), c.environ, nil)
			wantProblems(t, err, c.want...)
		})
	}
}

func TestNoProblemShowsASecret(t *testing.T) {
	const marker = "hunter2hunter2"
	for _, file := range []string{
		"auth: {jwt_secret: " + marker + "}",
		"auth: {jwt_secret: [" + marker + "]}",
		"auth: " + marker,
		"auth: {jwt_secret: *" + marker + "}",
		marker,
		"storage: {driver: mongodb, mongodb: {uri: " + marker + "}}",
		"storage: {mongodb: " + marker + "}",
		"llm: {providers: [{id: a, type: openai, base_url: 'ftp://u:" + marker + "@host', api_key: [" + marker + "]}]}",
		"llm: {providers: [{id: a, type: openai, base_url: 'http://host', api_key_env: " + marker + "}]}",
		"llm: {providers: " + marker + "}",
		"auth:\n  jwt_secret: " + marker + "\n bad",
		"auth: {jwt_secret:" + marker + "}",
	} {
		_, err := config.Load(write(t, file), []string{"PARLEY_AUTH_JWT_SECRET_FILE=" + marker}, nil)
		if err == nil || strings.Contains(err.Error(), marker) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestAFileThatCannotBeUsed(t *testing.T) {
	for name, path := range map[string]string{
		"missing":   filepath.Join(t.TempDir(), "none.yaml"),
		"folder":    t.TempDir(),
		"no YAML":   write(t, "server: {addr: [}"),
		"a list":    write(t, "- 1\n- 2\n"),
		"duplicate": write(t, "log: {level: info}\nlog: {level: warn}\n"),
	} {
		_, err := config.Load(path, []string{"PARLEY_AUTH_JWT_SECRET=" + strongSecret}, nil)
		wantProblems(t, err, "--config")
		if name == "duplicate" && !strings.Contains(err.Error(), `mapping key "log" already`) {
			t.Errorf("%v", err)
		}
	}
}

func TestDefaultsFollowTheirBoundDown(t *testing.T) {
	cfg, err := config.Load(write(t, valid), []string{"PARLEY_LLM_STREAM_TIMEOUT=2s", "PARLEY_STORAGE_RETRY_MAX_BACKOFF=50ms"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.LLM.FirstTokenTimeout != 2*time.Second || cfg.LLM.IdleTimeout != 2*time.Second ||
		cfg.Storage.Retry.InitialBackoff != 50*time.Millisecond {
		t.Errorf("got %+v, %+v", cfg.LLM, cfg.Storage.Retry)
	}
	_, err = config.Load(write(t, valid), []string{"PARLEY_LLM_STREAM_TIMEOUT=2s", "PARLEY_LLM_IDLE_TIMEOUT=3s"}, nil)
	wantProblems(t, err, "llm.idle_timeout")
}

func TestAdminLimitFollowsTheRequestsLimitDown(t *testing.T) {
	for requests, want := range map[string]config.Rate{
		"240": {Limit: 60, Window: time.Minute}, "40": {Limit: 10, Window: time.Minute}, "1": {Limit: 1, Window: 4 * time.Minute},
	} {
		cfg, err := config.Load(write(t, valid), []string{"PARLEY_RATE_LIMIT_REQUESTS_LIMIT=" + requests}, nil)
		if err != nil || cfg.RateLimit.Admin != want {
			t.Errorf("with %s requests admins have %+v (%v)", requests, cfg.RateLimit.Admin, err)
		}
	}
	_, err := config.Load(write(t, valid), []string{"PARLEY_RATE_LIMIT_REQUESTS_LIMIT=40", "PARLEY_RATE_LIMIT_ADMIN_LIMIT=40"}, nil)
	wantProblems(t, err, "rate_limit.admin")
}

func TestVariablesOfOthersAreLeftAlone(t *testing.T) {
	if _, err := config.Load(write(t, valid), []string{"PARLEY_BIN=/opt/parley"}, nil); err != nil {
		t.Errorf("a variable that is nowhere near a key: %v", err)
	}
	_, err := config.Load(write(t, valid), []string{"PARLEY_LOG_LEVL=debug"}, nil)
	wantProblems(t, err, "PARLEY_LOG_LEVL")
}

func TestCertificateAndKeyBelongTogether(t *testing.T) {
	file := write(t, "no PEM")
	_, err := config.Load(write(t, valid), []string{"PARLEY_SERVER_TLS_CERT_FILE=" + file, "PARLEY_SERVER_TLS_KEY_FILE=" + file}, nil)
	wantProblems(t, err, "server.tls")
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]config.ByteSize{
		"0": 0, "1": 1, "64KiB": 65536, "64 kib": 65536, "1MB": 1e6, "2GiB": 2 << 30, "12B": 12, "3TB": 3e12, "1TiB": 1 << 40,
	} {
		var got config.ByteSize
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
		var again config.ByteSize
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%s written as %s is %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "1.5GiB", "9999999TiB", "1 apple", "0x10", "B"} {
		var got config.ByteSize
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}

func TestOverridesThatDoNotFitTogether(t *testing.T) {
	_, err := config.Load(write(t, valid), nil, map[string]any{"server": "1", "log.level.x": "2", "llm.models": "gpt"})
	wantProblems(t, err, "server", "log.level", "llm.models")
	typed := map[string]any{"session.idle_timeout": time.Minute, "websocket.allowed_origins": []string{"https://a.example"},
		"llm.models": []config.Model{{ID: "m", Targets: []string{"doctor/x"}}}, "ui.enabled": false, "llm.history_tokens": 5}
	cfg, err := config.Load(write(t, valid), nil, typed)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Session.IdleTimeout != time.Minute || len(cfg.WebSocket.AllowedOrigins) != 1 || cfg.LLM.Models[0].ID != "m" ||
		cfg.UI.Enabled || cfg.LLM.HistoryTokens != 5 {
		t.Errorf("got %s", cfg.Redacted())
	}
}
