package ui_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/parley-chat/parley/internal/ui/uitest"
)

func TestPageShowsAStreamedAnswerThatGoesOnAfterAReload(t *testing.T) {
	steps := make(script)
	server := newFakeServer(t, steps.answer)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	if fragment := uitest.Evaluate[string](b, `location.hash`); fragment != "" {
		t.Errorf("the token is still in the address: %s", fragment)
	}
	b.Say("Are you there?")
	b.Until(`document.querySelector('.message[data-role=assistant][data-status=streaming]')`)
	steps.next(server, "I am **he")
	b.UntilText("assistant", "I am **he")
	if left := uitest.Evaluate[string](b, `document.querySelector('#composer').value`); left != "" {
		t.Errorf("after sending the field holds %q", left)
	}
	if uitest.Evaluate[bool](b, `document.querySelector('#stop').hidden || !document.querySelector('#send').hidden`) {
		t.Error("while an answer streams there is Send and no Stop")
	}

	b.Reload()
	b.UntilText("user", "Are you there?")
	b.UntilText("assistant", "I am **he")
	steps.next(server, "re**.\nGo on.")
	b.UntilText("assistant", "I am **here**.\nGo on.")
	close(steps)
	b.Until(`document.querySelector('.message[data-status=complete] .text strong')?.textContent === 'here'`)
	b.Until(`document.querySelector('#stop').hidden && !document.querySelector('#send').hidden`)

	b.Reload()
	b.Until(`document.querySelector('.message[data-role=assistant] .text strong')?.textContent === 'here'`)
	if opens := server.frames("session.open"); len(opens) != 3 || opens[2]["after"] != nil ||
		opens[2]["session_id"] != "SESSION1" {
		t.Errorf("a reload opens the same session without a cursor; got %v", opens)
	}
}

func TestPageResumesWhereTheLineBroke(t *testing.T) {
	steps := make(script)
	server := newFakeServer(t, steps.answer)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say("Count.")
	b.Until(`document.querySelector('.message[data-role=assistant]')`)
	steps.next(server, "one, ")
	b.UntilText("assistant", "one, ")
	server.refuse(true)
	server.cut(0)
	b.Until(`document.querySelector('#connection').dataset.state === 'connecting'`)
	steps.next(server, "two, ")
	server.refuse(false)
	b.UntilText("assistant", "one, two, ")
	steps.next(server, "three.")
	close(steps)
	b.Until(`document.querySelector('.message[data-role=assistant][data-status=complete]')`)
	b.Until(`document.querySelector('.message[data-role=assistant] .text').textContent.trim() === 'one, two, three.'`)
	resumed := server.await("session.open", 2)
	if resumed["epoch"] != "e1" || resumed["after"] != 3.0 {
		t.Errorf("the page reopened with %v, want epoch e1 after 3", resumed)
	}
}

func TestPageSendsOnceWhatWasWrittenWhileTheLineWasDown(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, question string) {
		turn.delta("You said: " + question)
		turn.end("complete")
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	server.refuse(true)
	server.cut(0)
	b.Until(`document.querySelector('#connection').dataset.state === 'connecting'`)
	b.Say("first")
	b.Say("second")
	b.Until(`document.querySelectorAll('.message[data-status=waiting]').length === 2`)
	b.Reload() // what is not sent yet survives even this
	b.Until(`document.querySelectorAll('.message[data-status=waiting]').length === 2`)
	server.refuse(false)
	b.Until(`document.querySelectorAll('.message[data-role=assistant][data-status=complete]').length === 2`)
	b.Until(`document.querySelectorAll('.message[data-role=user][data-status=complete]').length === 2`)
	order := uitest.Evaluate[string](b, `[...document.querySelectorAll('.message .text')]
		.map((text) => text.textContent.trim()).join('|')`)
	if want := "first|You said: first|second|You said: second"; order != want {
		t.Errorf("the page shows %s, want %s", order, want)
	}
}

func TestPageStopsAndRetriesAnAnswer(t *testing.T) {
	steps := make(script)
	server := newFakeServer(t, steps.answer)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say("Is it so?")
	steps.next(server, "Well")
	b.UntilText("assistant", "Well")
	b.Do("press Escape", chromedp.KeyEvent("\x1b"))
	b.Until(`document.querySelector('.message[data-role=assistant]').dataset.status === 'cancelled'`)
	b.Click(`[data-action=retry]`)
	steps.next(server, "Yes.")
	close(steps)
	b.Until(`document.querySelector('.message[data-role=assistant][data-status=complete]')`)
	b.Until(`document.querySelectorAll('.message[data-role=assistant]').length === 1`)
	b.Until(`document.querySelector('[data-action=retry]') === null`)
}

func TestPageFollowsTheAnswerUnlessTheReaderScrollsUp(t *testing.T) {
	steps := make(script)
	server := newFakeServer(t, steps.answer)
	b := uitest.Open(t)
	b.Do("resize", chromedp.EmulateViewport(390, 600))
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say("Tell me everything.")
	const atEnd = `document.scrollingElement.scrollHeight - scrollY - innerHeight < 2`
	steps.next(server, strings.Repeat("line\n", 60))
	b.Until(`scrollY > 500 && ` + atEnd)
	uitest.Evaluate[bool](b, `scrollTo(0, 300), true`)
	b.Until(`!document.querySelector('#latest').hidden`)
	steps.next(server, strings.Repeat("more\n", 60))
	b.Until(`document.querySelector('.message[data-role=assistant] .text').textContent.includes('more')`)
	if at := uitest.Evaluate[int](b, `scrollY`); at != 300 {
		t.Errorf("the page moved to %d under a reader at 300", at)
	}
	b.Click("#latest")
	b.Until(atEnd + ` && document.querySelector('#latest').hidden`)
	steps.next(server, strings.Repeat("last\n", 60))
	close(steps)
	b.Until(`document.querySelector('.message[data-role=assistant] .text.prose') && ` + atEnd)
}

func TestPageSaysWhyAnAnswerFailed(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) {
		turn.delta("Let me")
		turn.fail("llm_timeout")
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say("Hello?")
	b.Until(`document.querySelector('.message[data-status=failed] .note')?.textContent.includes('too long')`)
	b.Until(`document.querySelector('[data-action=retry]')`)
}

func TestPageLeavesTheConversationToTheNewerWindow(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) { turn.end("complete") })
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	second := b.Another()
	second.Visit(server.link("ada"))
	second.UntilOpen()
	b.Until(`document.querySelector('#notice').textContent.includes('another window')`)
	b.Until(`document.querySelector('#connection').dataset.state === 'closed'`)
	b.Click(`#notice button`)
	b.UntilOpen()
	second.Until(`document.querySelector('#connection').dataset.state === 'closed'`)
}

func TestPageStartsAnewWhereItsSessionIsGone(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) { turn.end("complete") })
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	server.forget()
	b.Reload()
	b.Until(`document.querySelector('#notice').textContent.includes('no longer available')`)
	b.UntilOpen()
	if id := uitest.Evaluate[string](b, `localStorage.getItem('parley./chat/.ada.session')`); id != "SESSION2" {
		t.Errorf("the page remembers session %q, want the new one", id)
	}
}

func TestPageKeepsTheConversationsOfUsersApart(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) { turn.end("complete") })
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Visit("about:blank")
	b.Visit(server.link("grace"))
	b.UntilOpen()
	if opened := server.await("session.open", 2); opened["session_id"] != nil {
		t.Errorf("grace opened ada's session: %v", opened)
	}
}

func TestPageGetsAnewWhatDoesNotHaveItsLength(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) {
		turn.delta("naïve")
		turn.endAs(frame{"status": "complete", "length": len("naïve") + 1})
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say("Go")
	again := server.await("session.open", 2)
	if again["after"] != nil || again["session_id"] != "SESSION1" {
		t.Errorf("the page reopened with %v, want the session without a cursor", again)
	}
	b.UntilOpen()
	b.Until(`document.querySelector('.message[data-role=assistant] .text').textContent.trim() === 'naïve'`)
}

func TestPageReconnectsWhereAnEventIsMissing(t *testing.T) {
	steps := make(script)
	server := newFakeServer(t, steps.answer)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say("Count.")
	steps.next(server, "one ")
	b.UntilText("assistant", "one ")
	server.skip(1)
	steps.next(server, "two ")
	steps.next(server, "three")
	b.UntilText("assistant", "one two three")
	close(steps)
	if again := server.await("session.open", 2); again["after"] != 3.0 || again["epoch"] != "e1" {
		t.Errorf("the page reopened with %v, want what lies after 3", again)
	}
}

func TestPageComesBackWhenADrainingServerSaysSo(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) { turn.end("complete") })
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	server.notify(frame{"type": "server.draining", "reconnect_after_ms": 60_000})
	server.cut(1012)
	b.Until(`/in (59|60) s/.test(document.querySelector('#connection .label').textContent)`)
	b.Do("go online", chromedp.Evaluate[chromedp.Void](`void dispatchEvent(new Event('online'))`))
	b.UntilOpen()
	if again := server.await("session.open", 2); again["epoch"] != "e1" {
		t.Errorf("the page reopened with %v, want it to resume", again)
	}
}

func TestPageRunsNoScriptOfAMessage(t *testing.T) {
	const attack = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>` +
		`[click](javascript:window.pwned=1) ![i](http://evil.example/i.png)`
	server := newFakeServer(t, func(turn *fakeTurn, question string) {
		turn.think(attack)
		turn.delta(attack)
		turn.end("complete")
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say(attack)
	b.Until(`document.querySelector('.message[data-role=assistant] .text.prose')`)
	found := uitest.Evaluate[string](b, `String([window.pwned,
		document.querySelectorAll('.message :is(img, script)').length,
		document.querySelectorAll('.message a[href^=javascript]').length])`)
	if found != ",0,0" {
		t.Errorf("a message's text became code: %s", found)
	}
}

func TestPageAsksForALink(t *testing.T) {
	server := newFakeServer(t, func(*fakeTurn, string) {})
	b := uitest.Open(t)
	b.Visit(server.URL + "/chat/")
	b.Until(`!document.querySelector('#gate').hidden`)
	b.Do("paste", chromedp.SendKeys(chromedp.CSS("#token"), "nonsense\r"))
	b.Until(`!document.querySelector('#gate-error').hidden`)
	field := chromedp.CSS("#token")
	b.Do("paste", chromedp.SetValue(field, server.link("ada")), chromedp.SendKeys(field, "\r"))
	b.Until(`document.querySelector('#gate')?.hidden`)
	b.UntilOpen()
}

func TestPageAsksForANewLinkWhereTheTokenIsRefused(t *testing.T) {
	server := newFakeServer(t, func(*fakeTurn, string) {})
	b := uitest.Open(t)
	b.Visit(server.URL + "/chat/#token=" + fakeToken("expired", "ada"))
	b.Until(`!document.querySelector('#gate').hidden`)
	b.Until(`document.querySelector('#gate-heading').textContent.includes('no longer valid')`)
}

func TestPageStartsANewConversation(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) {
		turn.delta("Yes.")
		turn.end("complete")
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Until(`!document.querySelector('#welcome').hidden`)
	b.Say("One")
	b.Until(`document.querySelector('.message[data-role=assistant][data-status=complete]')`)
	b.Until(`document.querySelector('#welcome').hidden`)
	b.Click("#new")
	b.Until(`document.querySelectorAll('.message').length === 0 && !document.querySelector('#welcome').hidden`)
	if opened := server.await("session.open", 2); opened["session_id"] != nil {
		t.Errorf("a new conversation opened %v", opened)
	}
	b.Say("Two")
	b.UntilText("user", "Two")
}

func TestPageHasNoSidewaysScrollFrom320Pixels(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) {
		turn.delta("| a | b | c | d |\n|-|-|-|-|\n| " + fmt.Sprintf("%0200d", 0) + " | b | c | d |\n\n```go\n" +
			fmt.Sprintf("%0300d", 1) + "\n```\n\n" + fmt.Sprintf("%0300d", 2))
		turn.end("complete")
	})
	b := uitest.Open(t)
	b.Do("resize", chromedp.EmulateViewport(320, 640))
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say(fmt.Sprintf("%0200d", 3))
	b.Until(`document.querySelector('.message .prose pre')`)
	if wide := uitest.Evaluate[bool](b, `document.scrollingElement.scrollWidth > innerWidth`); wide {
		t.Error("the page scrolls sideways")
	}
}
