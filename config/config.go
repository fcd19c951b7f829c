// Package config is how an operator tells Parley what to do: defaults, then a YAML file, then the environment, then
// flags make one [Config], which is checked as a whole before anything starts.
package config

import (
	"net/netip"
	"time"
)

// Config is everything that can be configured. A field's tag is its key in the file; the key's path in capitals, with
// PARLEY_ before it, is its name in the environment. A field tagged secret is never printed.
type Config struct {
	Server    Server    `koanf:"server"`
	Auth      Auth      `koanf:"auth"`
	WebSocket WebSocket `koanf:"websocket"`
	Session   Session   `koanf:"session"`
	LLM       LLM       `koanf:"llm"`
	Storage   Storage   `koanf:"storage"`
	RateLimit RateLimit `koanf:"rate_limit"`
	UI        UI        `koanf:"ui"`
	Log       Log       `koanf:"log"`
	Telemetry Telemetry `koanf:"telemetry"`
}

// Server is where Parley listens and how it stops.
type Server struct {
	Addr            string         `koanf:"addr"`            // host:port of the public listener
	OperationsAddr  string         `koanf:"operations_addr"` // host:port of health and metrics; empty: none
	PathPrefix      string         `koanf:"path_prefix"`     // empty, or /like/this
	ShutdownTimeout time.Duration  `koanf:"shutdown_timeout"`
	TrustedProxies  []netip.Prefix `koanf:"trusted_proxies"` // whose X-Forwarded headers are believed
	TLS             TLS            `koanf:"tls"`
}

// TLS is the public listener's certificate. Both files are named, or none.
type TLS struct {
	CertFile string `koanf:"cert_file"`
	KeyFile  string `koanf:"key_file"`
}

// Auth is how tokens are verified: by exactly one of JWTSecret, JWTPublicKeyFile and JWKSURL.
type Auth struct {
	JWTSecret         string `koanf:"jwt_secret" secret:"true"`          // HS256
	PreviousJWTSecret string `koanf:"previous_jwt_secret" secret:"true"` // of tokens from before jwt_secret was changed; empty: none
	JWTPublicKeyFile  string `koanf:"jwt_public_key_file"`               // RS256, ES256 or EdDSA, as the key's type says
	JWKSURL           string `koanf:"jwks_url"`
	Issuer            string `koanf:"issuer"`   // the iss that a token must have; empty: any
	Audience          string `koanf:"audience"` // the aud that a token must have; empty: any
}

// WebSocket is who may connect, and the limits of a connection.
type WebSocket struct {
	AllowedOrigins           []string      `koanf:"allowed_origins"` // in the forms of [ParseOrigin]
	AllowAnyOrigin           bool          `koanf:"allow_any_origin"`
	MaxMessageBytes          ByteSize      `koanf:"max_message_bytes"`
	MaxConnections           int           `koanf:"max_connections"`
	MaxConnectionsPerUser    int           `koanf:"max_connections_per_user"`
	MaxConnectionsPerAddress int           `koanf:"max_connections_per_address"` // 0: no limit
	PingInterval             time.Duration `koanf:"ping_interval"`
	PongTimeout              time.Duration `koanf:"pong_timeout"`
	WriteTimeout             time.Duration `koanf:"write_timeout"`
}

// Session is how long conversations stay in memory.
type Session struct {
	IdleTimeout      time.Duration `koanf:"idle_timeout"` // without connection and turn for so long: inactive
	GracePeriod      time.Duration `koanf:"grace_period"` // inactive for so long: removed from memory
	CleanupInterval  time.Duration `koanf:"cleanup_interval"`
	WarnThreshold    int           `koanf:"warn_threshold"` // sessions in memory; a warning above it
	MaxResponseTimes int           `koanf:"max_response_times"`
}

// LLM is which models there are, how they are asked, and how long they may take.
type LLM struct {
	StreamTimeout     time.Duration `koanf:"stream_timeout"`      // a whole response
	ConnectTimeout    time.Duration `koanf:"connect_timeout"`     // until a connection is there
	FirstTokenTimeout time.Duration `koanf:"first_token_timeout"` // from the request to the first text
	IdleTimeout       time.Duration `koanf:"idle_timeout"`        // between two chunks
	HistoryTokens     int           `koanf:"history_tokens"`      // of the conversation sent along, estimated
	SystemPrompt      string        `koanf:"system_prompt"`       // a template, in which {{.Metadata.NAME}} is the session's
	DefaultModel      string        `koanf:"default_model"`       // a model's ID; empty: the first
	TitleModel        string        `koanf:"title_model"`         // a model's ID; empty: titles are a conversation's first words
	Retry             Retry         `koanf:"retry"`               // of one target, before its first token
	HedgeAfter        time.Duration `koanf:"hedge_after"`         // 0: never
	Breaker           Breaker       `koanf:"breaker"`
	Budget            Budget        `koanf:"budget"`
	Moderation        Moderation    `koanf:"moderation"`
	Providers         []Provider    `koanf:"providers"`
	Models            []Model       `koanf:"models"`
}

// Breaker is when a target is not asked any more: after so many failures in a row, for so long.
type Breaker struct {
	Failures int           `koanf:"failures"`
	Delay    time.Duration `koanf:"delay"`
}

// Budget is how many tokens a user may spend, input and output together, in each window. Windows begin at multiples of
// their length: those of 24h at midnight UTC, those of 168h on Mondays.
type Budget struct {
	Tokens int           `koanf:"tokens"` // 0: as many as the user likes
	Window time.Duration `koanf:"window"`
}

// Moderation is the endpoint that is asked before a user's message goes to a model.
type Moderation struct {
	URL          string        `koanf:"url"` // empty: none
	APIKey       string        `koanf:"api_key" secret:"true"`
	Timeout      time.Duration `koanf:"timeout"`
	AllowOnError bool          `koanf:"allow_on_error"` // where it is down messages go to the model unseen; else they are refused
}

// Provider is a service that runs models. [Load] fills APIKey from the file or the environment variable that is named
// instead of it. A timeout of 0 is that of [LLM].
type Provider struct {
	ID                string        `koanf:"id"`
	Type              string        `koanf:"type"` // one of the Provider constants
	BaseURL           string        `koanf:"base_url"`
	APIKey            string        `koanf:"api_key" secret:"true"`
	APIKeyFile        string        `koanf:"api_key_file"`
	APIKeyEnv         string        `koanf:"api_key_env"`
	Proxy             string        `koanf:"proxy"`   // a URL, none, or empty for what the environment says
	CAFile            string        `koanf:"ca_file"` // PEM; trusted besides the system's authorities
	ConnectTimeout    time.Duration `koanf:"connect_timeout"`
	FirstTokenTimeout time.Duration `koanf:"first_token_timeout"`
	IdleTimeout       time.Duration `koanf:"idle_timeout"`
	StreamTimeout     time.Duration `koanf:"stream_timeout"`
}

// The types of a provider.
const (
	ProviderOpenAI    = "openai"
	ProviderAnthropic = "anthropic"
	ProviderDify      = "dify"
	ProviderEliza     = "eliza"
)

// NoProxy is the proxy setting of a provider that is reached directly, whatever the environment says.
const NoProxy = "none"

// Model is what a user can choose. Its targets are tried in order.
type Model struct {
	ID              string   `koanf:"id"`
	Name            string   `koanf:"name"`              // for people; empty: the ID
	Targets         []string `koanf:"targets"`           // each PROVIDER/MODEL; see [SplitTarget]
	SystemPrompt    string   `koanf:"system_prompt"`     // empty: that of [LLM]
	Temperature     *float64 `koanf:"temperature"`       // nil: as the provider likes
	MaxOutputTokens int      `koanf:"max_output_tokens"` // 0: as the provider likes
	Price           Price    `koanf:"price"`
}

// Price is what a million tokens cost, in any one currency. It is for figures only.
type Price struct {
	Input  float64 `koanf:"input"`
	Output float64 `koanf:"output"`
}

// Storage is where conversations are kept.
type Storage struct {
	Driver             string        `koanf:"driver"` // DriverSQLite or DriverMongoDB
	SQLite             SQLite        `koanf:"sqlite"`
	MongoDB            MongoDB       `koanf:"mongodb"`
	Retry              Retry         `koanf:"retry"`
	CheckpointInterval time.Duration `koanf:"checkpoint_interval"`
	Journal            Journal       `koanf:"journal"`
	LeaseTimeout       time.Duration `koanf:"lease_timeout"` // a server that has not renewed its lease for so long has gone
	Retention          time.Duration `koanf:"retention"`     // 0: for ever
	Encryption         Encryption    `koanf:"encryption"`
}

// The storage drivers.
const (
	DriverSQLite  = "sqlite"
	DriverMongoDB = "mongodb"
)

// SQLite is the embedded storage.
type SQLite struct {
	Path string `koanf:"path"`
}

// MongoDB is storage on a server.
type MongoDB struct {
	URI      string `koanf:"uri" secret:"true"`
	Database string `koanf:"database"`
}

// Retry is how often, and after how long, what failed for a reason that may pass is tried again.
type Retry struct {
	MaxAttempts    int           `koanf:"max_attempts"` // the first one included
	InitialBackoff time.Duration `koanf:"initial_backoff"`
	MaxBackoff     time.Duration `koanf:"max_backoff"`
}

// Journal is the local file that a running response passes before it is shown.
type Journal struct {
	Path     string   `koanf:"path"` // empty: the folder FILE.events beside the SQLite FILE, else parley.events
	MaxBytes ByteSize `koanf:"max_bytes"`
	Sync     bool     `koanf:"sync"` // survive the machine's crash, not only the process's
}

// Encryption is the sealing of stored text.
type Encryption struct {
	KeysetFile string `koanf:"keyset_file"` // empty: nothing is encrypted
}

// RateLimit is how much one user or address may ask for.
type RateLimit struct {
	Messages        Rate          `koanf:"messages"`        // a user's frames that cost something
	Requests        Rate          `koanf:"requests"`        // a user's HTTP requests and upgrades
	Admin           Rate          `koanf:"admin"`           // an admin's requests
	Unauthenticated Rate          `koanf:"unauthenticated"` // an address's missing and bad tokens
	CleanupInterval time.Duration `koanf:"cleanup_interval"`
}

// Rate is a limit in a sliding window.
type Rate struct {
	Limit  int           `koanf:"limit"`
	Window time.Duration `koanf:"window"`
}

// PerSecond is the rate as a number, for comparison.
func (r Rate) PerSecond() float64 { return float64(r.Limit) / r.Window.Seconds() }

// UI is the pages that Parley serves itself.
type UI struct {
	Enabled        bool     `koanf:"enabled"`
	FrameAncestors []string `koanf:"frame_ancestors"` // who may embed them, in the forms of [ParseOrigin] or 'self'
}

// Log is what is written to standard error.
type Log struct {
	Level  string `koanf:"level"`  // debug, info, warn or error
	Format string `koanf:"format"` // json or text
}

// Telemetry is where traces go: https://opentelemetry.io.
type Telemetry struct {
	OTLPEndpoint string  `koanf:"otlp_endpoint"`              // a collector's base URL, for OTLP over HTTP; empty: there are no traces
	OTLPHeaders  string  `koanf:"otlp_headers" secret:"true"` // sent along, in the form of [ParseHeaders]
	SampleRatio  float64 `koanf:"sample_ratio"`               // of the traces, 0 to 1
	ServiceName  string  `koanf:"service_name"`
}

// Default is the configuration without a file, an environment or flags. It is not valid: a way to verify tokens, a
// provider and a model have no default.
func Default() Config {
	return Config{
		Server: Server{
			Addr:            "127.0.0.1:8080",
			OperationsAddr:  "127.0.0.1:9090",
			ShutdownTimeout: 30 * time.Second,
		},
		WebSocket: WebSocket{
			MaxMessageBytes:       64 << 10,
			MaxConnections:        20_000,
			MaxConnectionsPerUser: 10,
			PingInterval:          25 * time.Second,
			PongTimeout:           10 * time.Second,
			WriteTimeout:          10 * time.Second,
		},
		Session: Session{
			IdleTimeout:      15 * time.Minute,
			GracePeriod:      5 * time.Minute,
			CleanupInterval:  time.Minute,
			WarnThreshold:    50_000,
			MaxResponseTimes: 100,
		},
		LLM: LLM{
			StreamTimeout:     2 * time.Minute,
			ConnectTimeout:    10 * time.Second,
			FirstTokenTimeout: 30 * time.Second,
			IdleTimeout:       30 * time.Second,
			HistoryTokens:     8000,
			Retry:             Retry{MaxAttempts: 2, InitialBackoff: 250 * time.Millisecond, MaxBackoff: 5 * time.Second},
			Breaker:           Breaker{Failures: 5, Delay: 30 * time.Second},
			Budget:            Budget{Window: 24 * time.Hour},
			Moderation:        Moderation{Timeout: 5 * time.Second},
		},
		Storage: Storage{
			Driver:             DriverSQLite,
			SQLite:             SQLite{Path: "parley.db"},
			MongoDB:            MongoDB{Database: "parley"},
			Retry:              Retry{MaxAttempts: 5, InitialBackoff: 100 * time.Millisecond, MaxBackoff: 2 * time.Second},
			CheckpointInterval: time.Second,
			LeaseTimeout:       10 * time.Second,
			Journal:            Journal{MaxBytes: 256 << 20},
		},
		RateLimit: RateLimit{
			Messages:        Rate{Limit: 60, Window: time.Minute},
			Requests:        Rate{Limit: 240, Window: time.Minute},
			Admin:           Rate{Limit: 60, Window: time.Minute},
			Unauthenticated: Rate{Limit: 30, Window: time.Minute},
			CleanupInterval: time.Minute,
		},
		UI:        UI{Enabled: true},
		Log:       Log{Level: "info", Format: "json"},
		Telemetry: Telemetry{SampleRatio: 1, ServiceName: "parley"},
	}
}
