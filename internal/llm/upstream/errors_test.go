package upstream_test

import (
	"testing"
	"time"

	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		header string
		want   time.Duration
	}{
		{"", 0},
		{"0", 0},
		{"7", 7 * time.Second},
		{"-7", 0},
		{"1.5", 0},
		{"soon", 0},
		{"86400", time.Hour},
		{"99999999999999999999", 0},
		{"Thu, 01 Jan 2026 12:00:30 GMT", 30 * time.Second},
		{"Thu, 01 Jan 2026 11:00:00 GMT", 0},
		{"Fri, 02 Jan 2026 12:00:00 GMT", time.Hour},
	}
	for _, test := range tests {
		if got := upstream.RetryAfter(test.header, now); got != test.want {
			t.Errorf("%q: got %s, want %s", test.header, got, test.want)
		}
	}
}
