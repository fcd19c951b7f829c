package config_test

import (
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/config"
)

func TestChangedNamesTheKeysThatDiffer(t *testing.T) {
	a := config.Default()
	if got := config.Changed(a, config.Default()); len(got) != 0 {
		t.Errorf("two defaults differ in %v", got)
	}
	b := a
	b.Server.PathPrefix, b.RateLimit.Admin.Window = "/x", time.Hour
	b.WebSocket.AllowedOrigins = []string{"https://a.example"}
	b.LLM.Providers = []config.Provider{{ID: "p"}}
	want := []string{"server.path_prefix", "websocket.allowed_origins", "llm.providers", "rate_limit.admin.window"}
	if got := config.Changed(a, b); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
