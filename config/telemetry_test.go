package config_test

import (
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/parley-chat/parley/config"
)

func TestHeaders(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                            {},
		"authorization=Bearer abc==":  {"authorization": "Bearer abc=="},
		" a = 1 , B-c=x%2Cy%25,d=e=f": {"a": "1", "B-c": "x,y%", "d": "e=f"},
	} {
		if got, err := config.ParseHeaders(text); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q is %q (%v), want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"sesame", "a=", "=sesame", "a b=sesame", "a=sesame,", "a=sesame%", "a=sesame%0d%0ab: c"} {
		if _, err := config.ParseHeaders(bad); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q gives %v", bad, err)
		}
	}
}

func TestTelemetryIsChecked(t *testing.T) {
	cfg, err := config.Load(write(t, valid), []string{"PARLEY_TELEMETRY_OTLP_HEADERS=authorization=Bearer sesame",
		"PARLEY_TELEMETRY_OTLP_ENDPOINT=https://collector.example/base", "PARLEY_TELEMETRY_SAMPLE_RATIO=0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Telemetry.SampleRatio != 0.1 || cfg.Telemetry.ServiceName != "parley" || strings.Contains(cfg.Redacted(), "sesame") ||
		!strings.Contains(cfg.Redacted(), "https://collector.example/base") {
		t.Errorf("it is %s", cfg.Redacted())
	}
	for key, edits := range map[string][]func(*config.Telemetry){
		"telemetry.otlp_endpoint": {
			func(c *config.Telemetry) { c.OTLPEndpoint = "127.0.0.1:4318" },
			func(c *config.Telemetry) { c.OTLPEndpoint = "grpc://collector" },
			func(c *config.Telemetry) { c.OTLPEndpoint = "http://me:sesame@collector" },
			func(c *config.Telemetry) { c.OTLPEndpoint = "http://collector?key=sesame" },
		},
		"telemetry.otlp_headers": {func(c *config.Telemetry) { c.OTLPHeaders = "sesame" }},
		"telemetry.sample_ratio": {
			func(c *config.Telemetry) { c.SampleRatio = -0.1 },
			func(c *config.Telemetry) { c.SampleRatio = 1.1 },
			func(c *config.Telemetry) { c.SampleRatio = math.NaN() },
		},
		"telemetry.service_name": {func(c *config.Telemetry) { c.ServiceName = " " }},
	} {
		for _, edit := range edits {
			c := cfg
			edit(&c.Telemetry)
			err := c.Validate()
			wantProblems(t, err, key)
			if strings.Contains(err.Error(), "sesame") || strings.Contains(c.Redacted(), "sesame") {
				t.Errorf("a secret is shown: %v\n%s", err, c.Redacted())
			}
		}
	}
}
