// Package ui serves the chat page: one HTML file, ES modules and CSS, embedded as they are written, and the service
// that turns a message's Markdown into HTML that is safe to show.
package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// The folder is laid out as it is served, so that the page's relative URLs hold under any path prefix.
//
//go:embed page
var embedded embed.FS

// Options say how the page is served.
type Options struct {
	// FrameAncestors are the origins that may show the page in a frame. Empty: none.
	FrameAncestors []string

	// Admit lets a rendering request in, or says why not; it is required. It may set headers of the answer.
	Admit func(w http.ResponseWriter, r *http.Request) error
}

// New returns the handler of the page. It serves / and everything under /ui/; mount it with [http.StripPrefix] under
// a path prefix.
//
// It panics where a file of the page cannot be read, which the build rules out.
func New(options Options) http.Handler {
	mux := http.NewServeMux()
	pages, err := fs.Sub(embedded, "page")
	if err != nil {
		panic(fmt.Sprintf("ui: %v", err))
	}
	err = fs.WalkDir(pages, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(pages, name)
		if err != nil {
			return err
		}
		mux.Handle(pattern(name), newAsset(name, content))
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("ui: %v", err))
	}
	mux.Handle("POST /ui/render", newRenderHandler(options.Admit))
	return secure(options.FrameAncestors, mux)
}

func pattern(name string) string {
	if name == "index.html" {
		return "GET /{$}"
	}
	return "GET /" + name
}

// asset is one file. Its ETag names its content, and a browser asks each time: a new release is seen at once, and
// costs a 304 where nothing has changed.
type asset struct {
	content     []byte
	contentType string
	etag        string
}

func newAsset(name string, content []byte) *asset {
	sum := sha256.Sum256(content)
	return &asset{content: content, contentType: contentType(name), etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
}

// contentType does not ask the machine's own table for the types that browsers insist on.
func contentType(name string) string {
	switch extension := path.Ext(name); extension {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return mime.TypeByExtension(extension)
	}
}

func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", a.contentType)
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", a.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}

// permissionsPolicy leaves the page nothing but the clipboard, for its Copy buttons.
const permissionsPolicy = "camera=(), clipboard-write=(self), geolocation=(), microphone=(), payment=(), usb=()"

// secure sets the headers that keep foreign code out of the page and the page out of foreign frames.
func secure(frameAncestors []string, next http.Handler) http.Handler {
	ancestors := "'none'"
	if len(frameAncestors) > 0 {
		ancestors = strings.Join(frameAncestors, " ")
	}
	policy := strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'",
		"style-src 'self'",
		"img-src 'self' data:",
		"connect-src 'self'",
		"font-src 'self'",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors " + ancestors,
		"require-trusted-types-for 'script'",
		"trusted-types parley",
	}, "; ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Permissions-Policy", permissionsPolicy)
		next.ServeHTTP(w, r)
	})
}
