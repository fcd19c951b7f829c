package llmtest

import (
	"net/http/httptest"
	"testing"
)

// Server is an upstream in the test's own process.
type Server struct {
	*Handler
	BaseURL string // what a provider is configured with
}

// NewServer starts an upstream on a loopback address. It is stopped when the test ends.
func NewServer(tb testing.TB) *Server {
	tb.Helper()
	h := NewHandler()
	server := httptest.NewServer(h)
	tb.Cleanup(func() {
		h.Close()
		server.Close()
	})
	return &Server{Handler: h, BaseURL: server.URL + "/v1"}
}
