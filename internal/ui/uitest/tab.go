// Package uitest drives Parley's pages in a real browser, for tests.
package uitest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience bounds all that a test does with one tab. It is long, so that a slow machine fails no test.
const patience = 90 * time.Second

// Tab is a page in a browser. What it is asked to do fails the test where it does not happen.
type Tab struct {
	t       *testing.T
	ctx     context.Context // of the browser's tab
	waiting context.Context // ends when patience does
	browser context.Context
}

// Open starts a browser with an empty profile and gives its tab. Without a browser on the machine the test is skipped,
// unless PARLEY_TEST_REQUIRE names chromium. The test fails if the page throws, or does what its own policy forbids.
func Open(t *testing.T) *Tab {
	t.Helper()
	path := findChromium(t)
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WindowSize(1000, 760),
		chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	browser, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return newTab(t, browser, browser)
}

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if slices.Contains(strings.Split(os.Getenv("PARLEY_TEST_REQUIRE"), ","), "chromium") {
		t.Fatal("PARLEY_TEST_REQUIRE asks for chromium, and there is none")
	}
	t.Skip("no Chromium on this machine")
	return ""
}

func newTab(t *testing.T, browser, ctx context.Context) *Tab {
	waiting, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	b := &Tab{t: t, ctx: ctx, waiting: waiting, browser: browser}
	b.watchConsole()
	return b
}

func (b *Tab) watchConsole() {
	ctx, stop := context.WithCancel(b.ctx)
	messages := chromedp.Console(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.IsException() || m.Source == "security" || strings.Contains(m.Text, "Content Security Policy") {
				b.t.Errorf("the page's console says %s (%s:%d)", m, m.URL, m.Line)
			}
		}
	}()
	b.t.Cleanup(func() {
		stop()
		<-done
	})
}

// Another opens a second tab of the same profile.
func (b *Tab) Another() *Tab {
	b.t.Helper()
	ctx, closeTab := chromedp.NewContext(b.browser)
	b.t.Cleanup(closeTab)
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatalf("open a second tab: %v", err)
	}
	return newTab(b.t, b.browser, ctx)
}

// Do carries out steps; what names them in a failure.
func (b *Tab) Do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.waiting, steps...); err != nil {
		b.Shot("failed")
		b.t.Fatalf("%s: %v", what, err)
	}
}

// Visit opens an address.
func (b *Tab) Visit(url string) {
	b.t.Helper()
	b.Do("visit", chromedp.Navigate(url))
}

// Reload loads the page anew.
func (b *Tab) Reload() {
	b.t.Helper()
	b.Do("reload", chromedp.Reload())
}

// Until waits for a JavaScript condition; one that throws is not met. chromedp's own Poll compiles code in the page,
// which the page's policy forbids.
func (b *Tab) Until(condition string) {
	b.t.Helper()
	expression := fmt.Sprintf(`new Promise((resolve) => {
		const met = () => { try { return %s } catch { return false } };
		const look = () => (met() ? resolve(true) : requestAnimationFrame(look));
		look();
	})`, condition)
	if _, err := chromedp.Run(b.waiting, chromedp.Evaluate[bool](expression, chromedp.EvalAwaitPromise)); err != nil {
		b.Shot("failed")
		shown, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		b.t.Fatalf("waiting until %s: %v; the page shows:\n%s", condition, err, shown)
	}
}

// UntilText waits until the last message of a role has exactly this text.
func (b *Tab) UntilText(role, text string) {
	b.t.Helper()
	const last = `[...document.querySelectorAll('.message[data-role=%s] .text')].at(-1)`
	b.Until(fmt.Sprintf(last+`?.textContent === %q`, role, text))
}

// UntilOpen waits until the page is connected.
func (b *Tab) UntilOpen() {
	b.t.Helper()
	b.Until(`document.querySelector('#connection').dataset.state === 'open'`)
}

// Evaluate gives the value of a JavaScript expression.
func Evaluate[T any](b *Tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.waiting, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return value
}

// Say types a message and sends it with Enter.
func (b *Tab) Say(text string) {
	b.t.Helper()
	b.Do("type", chromedp.SendKeys(chromedp.CSS("#composer"), text+"\r"))
}

// Click clicks what a selector finds first.
func (b *Tab) Click(selector string) {
	b.t.Helper()
	b.Do("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// Shot keeps a picture of the page, where PARLEY_TEST_SHOTS names a folder for them.
func (b *Tab) Shot(name string) {
	dir := os.Getenv("PARLEY_TEST_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Logf("no picture: %v", err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, b.t.Name()+"-"+name+".png"), png, 0o600); err != nil {
		b.t.Error(err)
	}
}
