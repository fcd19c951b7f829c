// Command ferretdb runs FerretDB, a database that speaks MongoDB's wire protocol, for tests. It keeps its data in SQLite
// files in a temporary folder, prints its address when it answers there, and ends when its standard input does, so that
// it never outlives the test that started it.
//
// It is a module of its own: what FerretDB depends on is nothing that Parley does.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// grace is how long the process may take to end. Connections that are still open get three seconds of it.
const grace = 10 * time.Second

// gcPercent is high: FerretDB reads whole collections, most of whose documents it throws away, and keeps little.
const gcPercent = 400

func main() {
	debug.SetGCPercent(gcPercent)
	if err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "ferretdb:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("ferretdb", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "`folder` that keeps the data; none takes a temporary one, which goes at the end")
	addr := flags.String("addr", "127.0.0.1:0", "loopback `address` to listen on; port 0 takes a free one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir != "" {
		return serve(*dir, *addr, stdin, stdout, stderr)
	}
	temporary, err := os.MkdirTemp("", "parley-ferretdb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	return serve(temporary, *addr, stdin, stdout, stderr)
}

// serve answers on addr until stdin ends or somebody interrupts the process.
func serve(dir, addr string, stdin io.Reader, stdout, stderr io.Writer) error {
	uri, err := sqliteURI(dir)
	if err != nil {
		return err
	}
	db, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{TCP: addr},
		// A command that is refused is a warning to FerretDB, and what many a test is about.
		Logger:    slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:   "sqlite",
		SQLiteURL: uri,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		io.Copy(io.Discard, stdin)
		stop()
		time.Sleep(grace)
		os.Exit(1) // a command that hangs keeps nothing alive
	}()
	fmt.Fprintln(stdout, db.MongoDBURI())
	return db.Run(ctx)
}

// sqliteURI names the folder as FerretDB wants it. Nothing is synced: the data need not outlive the machine.
func sqliteURI(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	uri := url.URL{Scheme: "file", Path: filepath.ToSlash(dir) + "/", OmitHost: true}
	uri.RawQuery = url.Values{"_pragma": {"synchronous(off)"}}.Encode()
	return uri.String(), nil
}
