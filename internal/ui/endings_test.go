package ui_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/ui/uitest"
)

func TestPageSaysHowAnAnswerEnded(t *testing.T) {
	failed := func(code string) func(*fakeTurn) { return func(turn *fakeTurn) { turn.fail(code) } }
	finished := func(reason string) func(*fakeTurn) {
		return func(turn *fakeTurn) { turn.endAs(frame{"status": "complete", "finish_reason": reason}) }
	}
	endings := []struct {
		name, text string
		end        func(*fakeTurn)
		says       string
		retry      bool
	}{
		{"whole", "Yes.", finished("stop"), "", false},
		{"length", "Well, as", finished("length"), "length limit", false},
		{"filter", "Well, as", finished("content_filter"), "filter ended", true},
		{"timeout", "Well, as", failed("llm_timeout"), "took too long", true},
		{"unavailable", "", failed("llm_unavailable"), "cannot be reached", true},
		{"broken", "Well, as", failed("llm_unavailable"), "broke off", true},
		{"rejected", "", failed("llm_rejected"), "did not accept", false},
		{"filtered", "", failed("content_filtered"), "declined", false},
		{"budget", "", failed("budget_exceeded"), "allowance is used up", true},
		{"storage", "Well, as", failed("storage_unavailable"), "could not be saved", true},
		{"internal", "", failed("internal"), "internal", true},
	}
	server := newFakeServer(t, func(turn *fakeTurn, question string) {
		for _, ending := range endings {
			if ending.name == question {
				turn.delta(ending.text)
				ending.end(turn)
			}
		}
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	const look = `(() => {
		const message = [...document.querySelectorAll('.message')].at(-1);
		const note = message.querySelector('.note');
		const said = message.querySelector('.text').nextElementSibling === note && !note.hidden ? note.textContent : '';
		const retry = message.querySelector('[data-action=retry]') !== null;
		return message.dataset.role === 'assistant' && message.dataset.status !== 'streaming' ? said + '|' + retry : '';
	})()`
	check := func(when, name, says string, retry bool) {
		t.Helper()
		b.Until(look + ` !== ''`)
		said, offered, _ := strings.Cut(uitest.Evaluate[string](b, look), "|")
		if (says == "") != (said == "") || !strings.Contains(said, says) || (offered == "true") != retry {
			t.Errorf("%s %s: the page says %q and offers a retry: %s; want %q, %t", when, name, said, offered, says, retry)
		}
	}
	for i, ending := range endings {
		b.Say(ending.name)
		server.await("message.send", i+1)
		b.Until(`document.querySelectorAll('.message[data-role=assistant]:not([data-status=streaming])').length === ` + strconv.Itoa(i+1))
		check("at once,", ending.name, ending.says, ending.retry)
	}
	last := endings[len(endings)-1]
	b.Reload()
	b.UntilOpen()
	b.Until(`document.querySelectorAll('.message[data-role=assistant]').length === ` + strconv.Itoa(len(endings)))
	check("after a reload,", last.name, last.says, last.retry)
	b.Shot("endings")
}

// What a model refused is worth another try with another model.
func TestPageOffersARetryOnceThereIsAnotherModel(t *testing.T) {
	server := newFakeServer(t, func(turn *fakeTurn, _ string) {
		if turn.message.fields["model"] == swift[0] {
			turn.fail("llm_rejected")
			return
		}
		turn.delta("Gladly.")
		turn.end("complete")
	})
	server.offer(swift, deep)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	untilModel(b, swift[0])
	b.Say("Would you?")
	b.Until(`document.querySelector('.message[data-status=failed] .note').textContent.includes('did not accept')`)
	if uitest.Evaluate[bool](b, `document.querySelector('[data-action=retry]') !== null`) {
		t.Error("the page offers to ask the same model for the same once more")
	}
	choose(b, deep[0])
	b.Click(`[data-action=retry]`)
	b.UntilText("assistant", "Gladly.\n")
	untilSpeaker(b, deep[1])
}

func TestPageShowsTheSessionsTitle(t *testing.T) {
	const title = `Tides & <b>moons</b>`
	server := newFakeServer(t, func(turn *fakeTurn, question string) {
		turn.delta("Twice a day.")
		turn.end("complete")
		turn.title(title)
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Until(`document.querySelector('#title').textContent === 'New conversation' && document.title === 'Parley'`)
	b.Say("How often do tides come?")
	check := func() {
		b.Until(`document.querySelector('#title').textContent === ` + "`" + title + "`" +
			` && document.querySelector('#title').childElementCount === 0`)
		b.Until(`document.title === ` + "`" + title + " – Parley`")
	}
	check()
	b.Reload()
	check()
}

func TestPageKeepsThoughtsApartFromTheText(t *testing.T) {
	steps := make(script)
	server := newFakeServer(t, func(turn *fakeTurn, question string) {
		turn.think("Tides come twice a day.")
		steps.answer(turn, question)
	})
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Say("How often?")
	const thoughts = `document.querySelector('.message[data-role=assistant] details.reasoning')`
	folded := `!` + thoughts + `.open && ` + thoughts + `.querySelector('.thoughts').textContent === 'Tides come twice a day.'`
	b.Until(thoughts + `.querySelector('summary').textContent === 'Thinking…' && ` + folded)
	b.UntilText("assistant", "")
	steps.next(server, "Twice.")
	b.UntilText("assistant", "Twice.")
	close(steps)
	b.Until(`document.querySelector('.message[data-status=complete] .text.prose')`)
	b.Until(thoughts + `.querySelector('summary').textContent === 'Thoughts' && ` + folded)
	b.Reload()
	b.UntilText("assistant", "Twice.\n")
	b.Until(folded + ` && ` + thoughts + `.nextElementSibling.classList.contains('text')`)
	b.Click(`details.reasoning summary`)
	b.Until(thoughts + `.open`)
	b.Shot("open")
}
