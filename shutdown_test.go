package parley_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
)

const testSecret = "wX9vT2mQc7RkJ8yLhN4sDgB6fPeUaVzE"

// asking is a server with a response in progress that will never end by itself, and the connection that asked for it.
func asking(t *testing.T) (*parley.Server, *websocket.Conn) {
	t.Helper()
	asked := make(chan struct{}, 1)
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else it would not be noticed that the client has gone
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(hung.Close)
	cfg := config.Default()
	cfg.Auth.JWTSecret = testSecret
	cfg.LLM.Providers = []config.Provider{{ID: "hung", Type: config.ProviderOpenAI, BaseURL: hung.URL, APIKey: "x"}}
	cfg.LLM.Models = []config.Model{{ID: "m", Targets: []string{"hung/m"}}}
	cfg.Storage.SQLite.Path = filepath.Join(t.TempDir(), "parley.db")
	server, err := parley.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	server.Register(mux)
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)

	token, err := auth.Sign(testSecret, chat.User{ID: "alice"}, "", "", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := websocket.Dial(t.Context(), strings.Replace(app.URL, "http", "ws", 1)+"/ws", &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	for _, frame := range []map[string]string{{"type": "session.open"}, {"type": "message.send", "message_id": "q", "text": "hi"}} {
		if err := wsjson.Write(t.Context(), conn, frame); err != nil {
			t.Fatal(err)
		}
	}
	<-asked
	return server, conn
}

func TestR15_3_ShutdownReturnsAnErrorBeyondItsDeadline(t *testing.T) {
	server, conn := asking(t)
	go func() {
		for { // a client that reads
			if _, _, err := conn.Read(context.Background()); err != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, parley.ErrForced) {
		t.Errorf("the error is %v", err)
	}
}
