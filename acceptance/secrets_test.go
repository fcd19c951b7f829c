//go:build unix

package acceptance_test

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// told is all that the servers of a whole run have said where anybody may read it: their logs, their figures, the
// answers of the HTTP API. Secrets are what must not be in it.
var told struct {
	mu      sync.Mutex // guards the fields below
	lines   []string
	secrets map[string]string // what each is, by the secret
}

// tell notes what a server has said.
func tell(text string) {
	told.mu.Lock()
	defer told.mu.Unlock()
	told.lines = append(told.lines, text)
}

// keepSecret notes what no server may say. Of a token it is each part but the header, which all tokens share.
func keepSecret(what, text string) string {
	told.mu.Lock()
	defer told.mu.Unlock()
	if told.secrets == nil {
		told.secrets = make(map[string]string)
	}
	parts := []string{text}
	if token := strings.Split(text, "."); len(token) == 3 {
		parts = token[1:]
	}
	for _, part := range parts {
		if len(part) > 8 { // a token's signature may be empty
			told.secrets[part] = what
		}
	}
	return text
}

// checkSecrets looks through all that was said for all secrets, and reports whether there are none.
func checkSecrets(w io.Writer) bool {
	told.mu.Lock()
	defer told.mu.Unlock()
	var pairs []string
	for secret := range told.secrets {
		pairs = append(pairs, secret, leak+secret+leak)
	}
	// A replacer looks for all of them at once.
	finder, clean := strings.NewReplacer(pairs...), true
	for _, line := range told.lines {
		if _, found, ok := strings.Cut(finder.Replace(line), leak); ok {
			secret, _, _ := strings.Cut(found, leak)
			fmt.Fprintf(w, "a server has said a secret, %s: %.300s\n", told.secrets[secret], line)
			clean = false
		}
	}
	fmt.Fprintf(w, "secrets: %d texts of servers hold none of %d secrets: %v\n", len(told.lines), len(told.secrets), clean)
	return clean
}

// leak marks a secret that was found. No server says it.
const leak = "\x00leak\x00"
