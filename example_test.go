package parley_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/config"
)

// A Go server of one's own embeds Parley: it registers Parley's routes beside its own.
func Example() {
	dir, err := os.MkdirTemp("", "parley-example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	cfg := config.Default()
	cfg.Server.PathPrefix = "/chat"
	cfg.Auth.JWTSecret = "wX9vT2mQc7RkJ8yLhN4sDgB6fPeUaVzE" // of a secret store, in earnest
	cfg.LLM.Providers = []config.Provider{{ID: "eliza", Type: config.ProviderEliza}}
	cfg.LLM.Models = []config.Model{{ID: "eliza", Name: "Eliza", Targets: []string{"eliza/doctor"}}}
	cfg.Storage.SQLite.Path = filepath.Join(dir, "parley.db")

	server, err := parley.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "my app") })
	server.Register(mux)

	app := httptest.NewServer(mux)
	for _, path := range []string{"/", "/chat/", "/chat/ws"} {
		resp, err := http.Get(app.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(path, resp.Status)
	}
	app.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fmt.Println("shutdown:", server.Shutdown(ctx))
	// Output:
	// / 200 OK
	// /chat/ 200 OK
	// /chat/ws 401 Unauthorized
	// shutdown: <nil>
}
