package parley

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/config"
)

// makePair makes a certificate with a serial number, and its key, both as PEM.
func makePair(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Date(2030, 1, int(serial), 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// writePair writes a certificate with a serial number, and its key, to a folder, which it makes.
func writePair(t *testing.T, dir string, serial int64) config.TLS {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files := config.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	cert, key := makePair(t, serial)
	writeFile(t, files.CertFile, cert)
	writeFile(t, files.KeyFile, key)
	return files
}

func loaded(t *testing.T, files config.TLS) (c *certificate, logs *bytes.Buffer) {
	t.Helper()
	logs = new(bytes.Buffer)
	c, err := loadCertificate(files, slog.New(slog.NewTextHandler(logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c, logs
}

// wantServed fails unless a client gets the certificate with a serial number.
func wantServed(t *testing.T, c *certificate, serial int64) {
	t.Helper()
	got, err := c.config().GetCertificate(nil)
	if err != nil || got.Leaf.SerialNumber.Int64() != serial {
		t.Errorf("served is %v (%v), want %d", got.Leaf.SerialNumber, err, serial)
	}
}

func TestARenewedCertificateIsServed(t *testing.T) {
	files := writePair(t, t.TempDir(), 1)
	c, logs := loaded(t, files)
	c.check()
	wantServed(t, c, 1)
	if logs.Len() > 0 {
		t.Errorf("nothing has changed, and the log is %s", logs)
	}
	writePair(t, filepath.Dir(files.CertFile), 2)
	c.check()
	wantServed(t, c, 2)
	if got := logs.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "expires=2030-01-02") {
		t.Errorf("the log: %s", got)
	}
}

func TestAHalfWrittenCertificateKeepsTheOldOne(t *testing.T) {
	files := writePair(t, t.TempDir(), 1)
	c, logs := loaded(t, files)
	cert, key := makePair(t, 2)
	for _, change := range []func(){
		func() { writeFile(t, files.CertFile, cert[:len(cert)/2]) },
		func() { writeFile(t, files.CertFile, cert) }, // with the key of the one before
		func() {
			if err := os.Remove(files.KeyFile); err != nil {
				t.Fatal(err)
			}
		},
		func() { writeFile(t, files.KeyFile, nil) },
	} {
		change()
		c.check()
		c.check()
		wantServed(t, c, 1)
	}
	writeFile(t, files.KeyFile, key)
	c.check()
	wantServed(t, c, 2)
	if got := logs.String(); strings.Count(got, "level=WARN") != 1 || strings.Count(got, "level=INFO") != 1 {
		t.Errorf("the log: %s", got)
	}
}

// Kubernetes: tls.crt is a link to ..data/tls.crt, and ..data one to a folder, which is swapped at once.
func TestACertificateBehindLinksIsFollowed(t *testing.T) {
	dir := t.TempDir()
	old, renewed, data := filepath.Join(dir, "..1"), filepath.Join(dir, "..2"), filepath.Join(dir, "..data")
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, name); err != nil {
			t.Skipf("there are no symbolic links here: %v", err)
		}
	}
	before, after := writePair(t, old, 1), writePair(t, renewed, 2)
	link(old, data)
	files := config.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	link(filepath.Join("..data", "tls.crt"), files.CertFile)
	link(filepath.Join("..data", "tls.key"), files.KeyFile)
	// Even where nothing but the file tells the two apart.
	now := time.Now()
	for _, path := range []string{before.CertFile, before.KeyFile, after.CertFile, after.KeyFile} {
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	c, _ := loaded(t, files)
	wantServed(t, c, 1)
	link(renewed, filepath.Join(dir, "..tmp"))
	if err := os.Rename(filepath.Join(dir, "..tmp"), data); err != nil {
		t.Fatal(err)
	}
	c.check()
	wantServed(t, c, 2)
}

func TestACertificateIsFollowedUntilTheEnd(t *testing.T) {
	files := writePair(t, t.TempDir(), 1)
	cert, key := makePair(t, 2)
	synctest.Test(t, func(t *testing.T) {
		c, _ := loaded(t, files)
		go c.follow(t.Context())
		synctest.Wait()
		writeFile(t, files.CertFile, cert)
		writeFile(t, files.KeyFile, key)
		wantServed(t, c, 1)
		time.Sleep(certificateInterval)
		synctest.Wait()
		wantServed(t, c, 2)
	})
}

func TestACertificateThatIsNoneIsAnErrorAtStart(t *testing.T) {
	files := writePair(t, t.TempDir(), 1)
	writeFile(t, files.KeyFile, []byte("no key"))
	if _, err := loadCertificate(files, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a key that is none is taken")
	}
	files.CertFile += ".none"
	if _, err := loadCertificate(files, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file that is not there is taken")
	}
}
