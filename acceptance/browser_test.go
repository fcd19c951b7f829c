//go:build unix

package acceptance_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/ui/uitest"
)

const (
	answer    = `.message[data-role="assistant"]`
	streaming = answer + `[data-status="streaming"] .text`
	finished  = answer + `[data-status="complete"] .text`
)

// longer is the condition that what a selector finds has more than n characters of text.
func longer(selector string, n int) string {
	return fmt.Sprintf(`document.querySelector('%s').textContent.length > %d`, selector, n)
}

func textOf(selector string) string {
	return fmt.Sprintf(`document.querySelector('%s').textContent`, selector)
}

// The main job, in a browser: a question, a streamed answer, a reload in its middle, and the answer goes on.
func TestBrowserReloadsInTheMiddleOfAnAnswer(t *testing.T) {
	b := uitest.Open(t)
	b.Visit(startDev(t, t.TempDir(), parleyBinary+" dev"))
	b.UntilOpen()
	b.Shot("empty")
	b.Say("tell me a long story")
	b.Until(longer(streaming, 200))
	b.Shot("streaming")
	before := uitest.Evaluate[string](b, textOf(streaming))

	b.Reload()
	b.Until(longer(streaming, len(before)))
	if after := uitest.Evaluate[string](b, textOf(streaming)); !strings.HasPrefix(after, before[:150]) {
		t.Errorf("after the reload the answer is %q, before it was %q", after, before)
	}
	b.Until(longer(finished, 1000))
	b.Shot("finished")
	if n := uitest.Evaluate[int](b, `document.querySelectorAll('.message').length`); n != 2 {
		t.Errorf("there are %d messages on the page", n)
	}
	if address := uitest.Evaluate[string](b, `location.href`); strings.Contains(address, "token") {
		t.Errorf("the token stays in the address: %s", address)
	}
}

// The server is killed and comes back: the page connects again by itself, and the conversation goes on.
func TestBrowserSurvivesTheServersDeath(t *testing.T) {
	b := uitest.Open(t)
	s := startServer(t, eliza)
	b.Visit("http://" + s.addr + "/#token=" + token("alice"))
	b.UntilOpen()
	b.Say("Hello")
	b.Until(longer(finished+" p", 5)) // rendered
	first := uitest.Evaluate[string](b, textOf(finished))

	s.stop(syscall.SIGKILL)
	b.Until(`document.querySelector('#connection').dataset.state !== 'open'`)
	b.Shot("offline")
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	same := strings.Replace(string(config), "addr: 127.0.0.1:0", "addr: \""+s.addr+"\"", 1)
	if err := os.WriteFile(s.config, []byte(same), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	b.UntilOpen()
	b.Say("I am back")
	b.Until(`document.querySelectorAll('` + finished + ` p:first-child').length === 2`)
	b.Shot("back")
	if again := uitest.Evaluate[string](b, textOf(finished)); again != first {
		t.Errorf("the first answer was %q and is %q", first, again)
	}

	// Once more, in the middle of an answer: what the page shows of it stays, and it can be had anew.
	b.Say("tell me a long story")
	b.Until(longer(streaming, 200))
	s.stop(syscall.SIGKILL)
	b.Until(`document.querySelector('#connection').dataset.state !== 'open'`)
	held := uitest.Evaluate[string](b, textOf(streaming))
	s.start()
	b.UntilOpen()
	interrupted := answer + `[data-status="interrupted"] .text`
	b.Until(`document.querySelector('` + interrupted + `')`)
	b.Shot("interrupted")
	// It is rendered now, but for that its last words are the same.
	if kept := uitest.Evaluate[string](b, textOf(interrupted)); !strings.HasSuffix(strings.TrimSpace(kept), strings.TrimSpace(held[len(held)-80:])) {
		t.Errorf("when the server died the page showed %q, afterwards it is %q", held, kept)
	}
	if n := uitest.Evaluate[int](b, `document.querySelectorAll('.message').length`); n != 6 {
		t.Errorf("there are %d messages on the page", n)
	}
}
