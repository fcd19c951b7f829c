package parley

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/parley-chat/parley/config"
)

// certificateInterval is how soon a certificate that was renewed is served.
const certificateInterval = time.Second

// certificate is the public listener's, which is renewed while the server runs: it follows its files.
type certificate struct {
	files  config.TLS
	log    *slog.Logger
	served atomic.Pointer[tls.Certificate]

	// Owned by who calls check.
	loaded [2]os.FileInfo // the files of what is served
	failed bool           // the files that are there now are no pair
}

// loadCertificate reads a certificate and its key.
func loadCertificate(files config.TLS, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, log: log}
	found, err := c.stat()
	if err != nil {
		return nil, err
	}
	return c, c.load(found)
}

// config gives the settings of a listener that serves the certificate, whichever it is at the time.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.served.Load(), nil },
		MinVersion:     tls.VersionTLS12,
	}
}

// follow looks at the files again and again until ctx ends.
func (c *certificate) follow(ctx context.Context) {
	ticker := time.NewTicker(certificateInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.check()
		case <-ctx.Done():
			return
		}
	}
}

// check loads the files again if they have changed. Files that are no pair, as while they are being written, change
// nothing: that is logged once, and they are tried again.
func (c *certificate) check() {
	found, err := c.stat()
	if err == nil {
		if isSame(found[0], c.loaded[0]) && isSame(found[1], c.loaded[1]) {
			c.failed = false
			return
		}
		err = c.load(found)
	}
	switch {
	case err == nil:
		c.log.Info("the certificate was renewed", "expires", c.served.Load().Leaf.NotAfter)
	case !c.failed:
		c.log.Warn("server.tls: the files have changed and cannot be used: the certificate from before is still served",
			"error", err)
	}
	c.failed = err != nil
}

// stat looks at both files, through symbolic links: Kubernetes replaces a secret's files by changing where one points.
func (c *certificate) stat() (found [2]os.FileInfo, err error) {
	for i, path := range []string{c.files.CertFile, c.files.KeyFile} {
		if found[i], err = os.Stat(path); err != nil {
			return found, err
		}
	}
	return found, nil
}

// load reads the files, which were found before: what changes in between is seen at the next check.
func (c *certificate) load(found [2]os.FileInfo) error {
	pair, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return err
	}
	c.served.Store(&pair)
	c.loaded = found
	return nil
}

func isSame(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
