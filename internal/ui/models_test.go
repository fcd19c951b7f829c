package ui_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/parley-chat/parley/internal/ui/uitest"
)

var (
	swift = [2]string{"swift-1", "Swift"}
	deep  = [2]string{"deep-2", "Deep & Slow"}
)

// agreeable answers every question at once.
func agreeable(turn *fakeTurn, _ string) {
	turn.delta("Yes.")
	turn.end("complete")
}

// choose does what the choice of a model in the list does.
func choose(b *uitest.Tab, model string) {
	uitest.Evaluate[bool](b, fmt.Sprintf(`(() => {
		const select = document.querySelector('#choose');
		select.value = %q;
		return select.dispatchEvent(new Event('change', { bubbles: true }));
	})()`, model))
}

// untilModel waits until the choice is there and shows a model.
func untilModel(b *uitest.Tab, model string) {
	b.Until(fmt.Sprintf(`document.querySelector('#choose').value === %q && !document.querySelector('#choice').hidden`, model))
}

// untilSpeaker waits until the last answer's speaker has a name.
func untilSpeaker(b *uitest.Tab, name string) {
	b.Until(fmt.Sprintf(`[...document.querySelectorAll('.message[data-role=assistant] .speaker')].at(-1).textContent === %q`, name))
}

func TestPageChoosesTheModelOfTheNextAnswer(t *testing.T) {
	steps := make(script)
	server := newFakeServer(t, steps.answer)
	server.offer(swift, deep)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	untilModel(b, swift[0])
	found := uitest.Evaluate[string](b, `(() => {
		const select = document.querySelector('#choose');
		return [select.labels[0].textContent, ...[...select.options].map((option) => option.text)].join('|');
	})()`)
	if want := "Model|Swift|Deep & Slow"; found != want {
		t.Errorf("the choice is %s, want %s", found, want)
	}

	b.Say("Is it so?")
	steps.next(server, "Well")
	b.UntilText("assistant", "Well")
	choose(b, deep[0])
	if asked := server.await("session.update", 1); asked["model"] != deep[0] {
		t.Errorf("the page asks for %v", asked)
	}
	untilModel(b, deep[0])
	untilSpeaker(b, swift[1]) // of the answer that is being written
	steps.next(server, ", yes.")
	b.UntilText("assistant", "Well, yes.")
	close(steps)
	b.Until(`document.querySelector('.message[data-role=assistant][data-status=complete]')`)
	b.Say("Really?")
	untilSpeaker(b, deep[1])

	b.Reload()
	untilModel(b, deep[0])
	untilSpeaker(b, deep[1])
}

func TestPageShowsOneModelAsAName(t *testing.T) {
	server := newFakeServer(t, agreeable)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Until(`document.querySelector('#model').textContent === 'Eliza' && !document.querySelector('#model').hidden`)
	if !uitest.Evaluate[bool](b, `document.querySelector('#choice').hidden`) {
		t.Error("with one model there is a choice")
	}
	b.Say("Hello")
	untilSpeaker(b, "Eliza")
}

func TestPageTakesBackAModelThatIsGone(t *testing.T) {
	server := newFakeServer(t, agreeable)
	server.offer(swift, deep)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	untilModel(b, swift[0])
	server.offer(swift)
	choose(b, deep[0])
	b.Until(`document.querySelector('#notice').textContent === 'This model is no longer available.'`)
	untilModel(b, swift[0])

	// A new conversation does not ask for it again.
	b.Say("Hello")
	b.Until(`document.querySelector('.message[data-role=assistant][data-status=complete]')`)
	b.Click("#new")
	if opened := server.await("session.open", 2); opened["model"] != nil {
		t.Errorf("a new conversation is opened with %v", opened)
	}
}

func TestPageShowsTheSessionsModelAfterALostLine(t *testing.T) {
	server := newFakeServer(t, agreeable)
	server.offer(swift, deep)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	untilModel(b, swift[0])
	server.refuse(true)
	server.cut(0)
	b.Until(`document.querySelector('#choose').disabled`)
	server.change("SESSION1", frame{"model": deep[0]}) // by an agent, say
	server.offer(deep, swift)
	server.refuse(false)
	b.UntilOpen()
	untilModel(b, deep[0])
	b.Until(`!document.querySelector('#choose').disabled && document.querySelector('#choose option').value === 'deep-2'`)
}

func TestPageChoosesTheModelOfASessionThatIsToBeMade(t *testing.T) {
	server := newFakeServer(t, agreeable)
	server.offer(swift, deep)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	untilModel(b, swift[0])
	startOffline := func() {
		server.refuse(true)
		server.cut(0)
		b.Until(`document.querySelector('#choose').disabled`)
		b.Click("#new")
		b.Until(`!document.querySelector('#choose').disabled`)
	}
	startOffline()
	choose(b, deep[0])
	server.refuse(false)
	if opened := server.await("session.open", 2); opened["model"] != deep[0] || opened["session_id"] != nil {
		t.Errorf("the page opens %v", opened)
	}
	b.UntilOpen()
	untilModel(b, deep[0])

	// The choice goes on to the next conversation, unless the model is gone by then.
	startOffline()
	untilModel(b, deep[0])
	server.offer(swift, [2]string{"new-3", "New"})
	server.refuse(false)
	b.UntilOpen()
	untilModel(b, swift[0])
	b.Until(`document.querySelector('#notice').textContent === 'This model is no longer available.'`)
	opens := server.frames("session.open")
	if len(opens) != 4 || opens[2]["model"] != deep[0] || opens[3]["model"] != nil {
		t.Errorf("the page opened %v", opens)
	}
	if updates := server.frames("session.update"); len(updates) > 0 {
		t.Errorf("the page changed %v", updates)
	}
}

func TestPageChoosesTheModelOfASessionThatIsBeingMade(t *testing.T) {
	server := newFakeServer(t, agreeable)
	server.offer(swift, deep)
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	untilModel(b, swift[0])
	b.Say("Hello")
	b.Until(`document.querySelector('.message[data-role=assistant][data-status=complete]')`)
	server.hold(true)
	b.Click("#new")
	if opened := server.await("session.open", 2); opened["model"] != nil {
		t.Errorf("before the choice the page opens %v", opened)
	}
	choose(b, deep[0])
	server.hold(false)
	if asked := server.await("session.update", 1); asked["model"] != deep[0] {
		t.Errorf("the page asks for %v", asked)
	}
	untilModel(b, deep[0])
	b.Say("And you?")
	untilSpeaker(b, deep[1])
}

func TestPageSaysThatThereIsNoListOfModels(t *testing.T) {
	server := newFakeServer(t, agreeable)
	server.offer()
	b := uitest.Open(t)
	b.Visit(server.link("ada"))
	b.UntilOpen()
	b.Until(`document.querySelector('#notice').textContent.includes('list of models')`)
	b.Until(`document.querySelector('#model').textContent === 'eliza' && document.querySelector('#choice').hidden`)
	b.Say("Hello")
	b.UntilText("assistant", "Yes.\n") // rendered: the conversation goes on without

	server.offer(swift, deep)
	server.cut(0)
	b.Until(`document.querySelector('#choose').options.length === 2`)
}

func TestPageKeepsTheChoiceWithinNarrowWindows(t *testing.T) {
	server := newFakeServer(t, agreeable)
	server.offer([2]string{"long", "A model whose makers could not settle for a shorter name than this"}, deep)
	b := uitest.Open(t)
	for _, width := range []int64{320, 360, 700, 1000} {
		b.Do("resize", chromedp.EmulateViewport(width, 640))
		b.Visit("about:blank") // else the link is a change of the fragment alone
		b.Visit(server.link("ada"))
		b.UntilOpen()
		untilModel(b, "long")
		b.Shot(fmt.Sprint(width))
		if uitest.Evaluate[bool](b, `document.scrollingElement.scrollWidth > innerWidth`) {
			t.Errorf("at %d pixels the page scrolls sideways", width)
		}
		// 24 pixels: WCAG 2.2, success criterion 2.5.8.
		inside := uitest.Evaluate[bool](b, `(() => {
			const select = document.querySelector('#choose').getBoundingClientRect();
			const dot = document.querySelector('#connection').getBoundingClientRect();
			return select.left >= 0 && select.right <= dot.left && select.width > 80 && select.height >= 24;
		})()`)
		if !inside {
			t.Errorf("at %d pixels the choice is cut off, covered or too small to touch", width)
		}
	}
}
