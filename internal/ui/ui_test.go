package ui_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/ui"
)

func handler(ancestors ...string) http.Handler {
	return ui.New(ui.Options{FrameAncestors: ancestors, Admit: func(_ http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("Authorization") != "Bearer good" {
			return chat.NewError(chat.CodeUnauthenticated, "bad token")
		}
		return nil
	}})
}

func get(h http.Handler, method, target string, header http.Header) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, target, nil)
	for name, values := range header {
		request.Header[name] = values
	}
	response := httptest.NewRecorder()
	h.ServeHTTP(response, request)
	return response
}

func TestEveryResponseHasTheHeadersThatGuardThePage(t *testing.T) {
	h := handler()
	for _, target := range []string{"/", "/ui/main.js", "/ui/theme.css", "/ui/mark.svg", "/ui/missing.js", "/ui/render"} {
		header := get(h, http.MethodGet, target, nil).Header()
		policy := header.Get("Content-Security-Policy")
		for _, directive := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
			"font-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
			"require-trusted-types-for 'script'", "trusted-types parley",
		} {
			if !strings.Contains("; "+policy+";", "; "+directive+";") {
				t.Errorf("%s: the policy lacks %q: %s", target, directive, policy)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the policy allows something unsafe: %s", target, policy)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", target, name, got, want)
			}
		}
		if !strings.Contains(header.Get("Permissions-Policy"), "camera=()") {
			t.Errorf("%s: Permissions-Policy is %q", target, header.Get("Permissions-Policy"))
		}
	}
}

func TestFrameAncestorsComeFromTheOptions(t *testing.T) {
	policy := get(handler("https://a.example", "https://b.example"), http.MethodGet, "/", nil).
		Header().Get("Content-Security-Policy")
	if want := "; frame-ancestors https://a.example https://b.example;"; !strings.Contains(policy, want) {
		t.Errorf("the policy is %q, want %q in it", policy, want)
	}
}

func TestAssetsAreServedWithTheirTypesAndRevalidated(t *testing.T) {
	h := handler()
	for target, contentType := range map[string]string{
		"/":             "text/html; charset=utf-8",
		"/ui/main.js":   "text/javascript; charset=utf-8",
		"/ui/theme.css": "text/css; charset=utf-8",
		"/ui/mark.svg":  "image/svg+xml",
	} {
		response := get(h, http.MethodGet, target, nil)
		if response.Code != http.StatusOK || response.Header().Get("Content-Type") != contentType {
			t.Errorf("GET %s: %d %s", target, response.Code, response.Header().Get("Content-Type"))
		}
		if cache := response.Header().Get("Cache-Control"); cache != "no-cache" {
			t.Errorf("GET %s: Cache-Control is %q", target, cache)
		}
		again := get(h, http.MethodGet, target, http.Header{"If-None-Match": {response.Header().Get("Etag")}})
		if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("GET %s with its ETag: %d and %d bytes", target, again.Code, again.Body.Len())
		}
		head := get(h, http.MethodHead, target, nil)
		if head.Code != http.StatusOK || head.Body.Len() > 0 {
			t.Errorf("HEAD %s: %d and %d bytes", target, head.Code, head.Body.Len())
		}
	}
}

func TestOnlyKnownPathsAndMethodsAreServed(t *testing.T) {
	h := handler()
	for _, c := range []struct {
		method, target string
		want           int
	}{
		{http.MethodPost, "/", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/ui/main.js", http.StatusMethodNotAllowed},
		{http.MethodGet, "/ui/render", http.StatusMethodNotAllowed},
		{http.MethodGet, "/index.html", http.StatusNotFound},
		{http.MethodGet, "/ui/", http.StatusNotFound},
		{http.MethodGet, "/ui/missing.js", http.StatusNotFound},
		{http.MethodGet, "/other", http.StatusNotFound},
	} {
		if got := get(h, c.method, c.target, nil).Code; got != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.target, got, c.want)
		}
	}
}

// files yields the page's files by their path below page/.
func files(t *testing.T, extension string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS("page"), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, extension) {
			return err
		}
		content, err := os.ReadFile("page/" + name)
		found[name] = string(content)
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("files of page with %s: %d, %v", extension, len(found), err)
	}
	return found
}

func TestPagesHaveNoInlineCode(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|\sstyle\s*=|\son\w+\s*=|javascript:|<script(?:\s[^>]*)?>[^<]`)
	for name, content := range files(t, ".html") {
		if found := inline.FindString(content); found != "" {
			t.Errorf("%s has inline code: %q", name, found)
		}
		for _, script := range regexp.MustCompile(`<script[^>]*>`).FindAllString(content, -1) {
			if !strings.Contains(script, "src=") {
				t.Errorf("%s has an inline script: %s", name, script)
			}
		}
	}
}

func TestPagesHaveRelativeURLsOnlyAndTheyExist(t *testing.T) {
	h := handler()
	reference := regexp.MustCompile(`(?:src|href)="([^"]*)"`)
	for name, content := range files(t, ".html") {
		for _, match := range reference.FindAllStringSubmatch(content, -1) {
			url := match[1]
			if strings.HasPrefix(url, "#") {
				continue
			}
			if strings.HasPrefix(url, "/") || strings.Contains(url, ":") {
				t.Errorf("%s refers to %s, which a path prefix would break", name, url)
				continue
			}
			if code := get(h, http.MethodGet, "/"+url, nil).Code; code != http.StatusOK {
				t.Errorf("%s refers to %s: %d", name, url, code)
			}
		}
	}
}

func TestModulesImportEachOtherRelativelyAndTheyExist(t *testing.T) {
	h := handler()
	imported := regexp.MustCompile(`(?:from|import)\s*\(?"([^"]+)"`)
	for name, content := range files(t, ".js") {
		for _, match := range imported.FindAllStringSubmatch(content, -1) {
			url, ok := strings.CutPrefix(match[1], "./")
			if code := get(h, http.MethodGet, "/ui/"+url, nil).Code; !ok || code != http.StatusOK {
				t.Errorf("%s imports %s: %d", name, match[1], code)
			}
		}
	}
}

// HTML enters the page in one place, which has the page's one Trusted Types policy.
func TestOnlyOneModuleTouchesHTML(t *testing.T) {
	sinks := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|` +
		`parseFromString|setHTML|\beval\(|new Function|srcdoc|createPolicy`)
	for name, content := range files(t, ".js") {
		if found := sinks.FindString(content); found != "" && name != "ui/markdown.js" {
			t.Errorf("%s uses %s", name, found)
		}
	}
}
