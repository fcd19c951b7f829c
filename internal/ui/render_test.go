package ui_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/ui"
)

func postRender(h http.Handler, authorization, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, "/ui/render", strings.NewReader(body))
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response := httptest.NewRecorder()
	h.ServeHTTP(response, request)
	return response
}

func render(t *testing.T, h http.Handler, texts ...string) []string {
	t.Helper()
	body, err := json.Marshal(map[string][]string{"texts": texts})
	if err != nil {
		t.Fatal(err)
	}
	response := postRender(h, "Bearer good", string(body))
	var answer struct {
		HTML []string `json:"html"`
	}
	if err := json.Unmarshal(response.Body.Bytes(), &answer); err != nil || response.Code != http.StatusOK {
		t.Fatalf("render: %d %s", response.Code, response.Body)
	}
	if len(answer.HTML) != len(texts) {
		t.Fatalf("render: %d texts gave %d", len(texts), len(answer.HTML))
	}
	return answer.HTML
}

const rel = ` rel="noopener noreferrer nofollow ugc" target="_blank"`

func TestRenderMarkdown(t *testing.T) {
	h := handler()
	for name, c := range map[string]struct{ text, want string }{
		"plain":            {"Hello", "<p>Hello</p>\n"},
		"line break":       {"one\ntwo", "<p>one<br>\ntwo</p>\n"},
		"emphasis":         {"**a** *b* ~~c~~ `d<e`", "<p><strong>a</strong> <em>b</em> <del>c</del> <code>d&lt;e</code></p>\n"},
		"typed tags":       {"<b>x</b> & <div>", "<p>&lt;b&gt;x&lt;/b&gt; &amp; &lt;div&gt;</p>\n"},
		"tag alone":        {"<div>\nhi\n</div>", "<p>&lt;div&gt;<br>\nhi<br>\n&lt;/div&gt;</p>\n"},
		"heading":          {"# A", "<h3>A</h3>\n"},
		"deepest heading":  {"###### A", "<h6>A</h6>\n"},
		"code":             {"```c++\na<b\n```", "<pre><code class=\"language-c++\">a&lt;b\n</code></pre>\n"},
		"list from 3":      {"3. a", "<ol start=\"3\">\n<li>a</li>\n</ol>\n"},
		"link":             {"[a](https://x.example/?a=1&b=2)", `<p><a href="https://x.example/?a=1&amp;b=2"` + rel + ">a</a></p>\n"},
		"bare link":        {"www.x.example", `<p><a href="http://www.x.example"` + rel + ">www.x.example</a></p>\n"},
		"mail":             {"<a@x.example>", `<p><a href="mailto:a@x.example"` + rel + ">a@x.example</a></p>\n"},
		"image":            {"![a *b*](https://x.example/i.png)", `<p><a href="https://x.example/i.png"` + rel + ">a <em>b</em></a></p>\n"},
		"image without":    {"![](https://x.example/i)", `<p><a href="https://x.example/i"` + rel + ">https://x.example/i</a></p>\n"},
		"image in link":    {"[![a](https://x.example/i)](https://y.example)", `<p><a href="https://y.example"` + rel + ">a</a></p>\n"},
		"image in image":   {"![![a](https://x.example/i)](https://y.example)", `<p><a href="https://y.example"` + rel + ">a</a></p>\n"},
		"table with align": {"|a|\n|-:|\n|1|", "<table>\n<thead>\n<tr>\n<th align=\"right\">a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td align=\"right\">1</td>\n</tr>\n</tbody>\n</table>\n"},
		"task":             {"- [x] a", "<ul>\n<li><input checked=\"\" disabled=\"\" type=\"checkbox\"> a</li>\n</ul>\n"},
		"empty":            {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := render(t, h, c.text)[0]; got != c.want {
				t.Errorf("%q gives\n%q, want\n%q", c.text, got, c.want)
			}
		})
	}
}

func TestRenderKeepsTheOrderOfTexts(t *testing.T) {
	got := render(t, handler(), "a", "", "b")
	if want := []string{"<p>a</p>\n", "", "<p>b</p>\n"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRenderRefuses(t *testing.T) {
	h := ui.New(ui.Options{Admit: func(_ http.ResponseWriter, r *http.Request) error {
		switch r.Header.Get("Authorization") {
		case "good":
			return nil
		case "busy":
			return &chat.Error{Code: chat.CodeRateLimited, Message: "too many", RetryAfter: 1}
		case "lost":
			return http.ErrNoCookie
		}
		return chat.NewError(chat.CodeUnauthenticated, "who are you?")
	}})
	many := `{"texts":[` + strings.Repeat(`"",`, 200) + `""]}`
	for name, c := range map[string]struct {
		authorization, body string
		status              int
		code                chat.Code
	}{
		"no token":   {"", `{"texts":[]}`, 401, chat.CodeUnauthenticated},
		"rate limit": {"busy", `{"texts":[]}`, 429, chat.CodeRateLimited},
		"a fault":    {"lost", `{"texts":[]}`, 500, chat.CodeInternal},
		"no JSON":    {"good", `texts`, 400, chat.CodeInvalidJSON},
		"no strings": {"good", `{"texts":[1]}`, 400, chat.CodeInvalidJSON},
		"too many":   {"good", many, 400, chat.CodeInvalidRequest},
		"too large":  {"good", `{"texts":["` + strings.Repeat("a", 1<<20) + `"]}`, 413, chat.CodeMessageTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			response := postRender(h, c.authorization, c.body)
			var problem struct {
				Status int       `json:"status"`
				Code   chat.Code `json:"code"`
				Detail string    `json:"detail"`
			}
			if err := json.Unmarshal(response.Body.Bytes(), &problem); err != nil {
				t.Fatalf("the body is no JSON: %s", response.Body)
			}
			if response.Code != c.status || problem.Status != c.status || problem.Code != c.code || problem.Detail == "" {
				t.Errorf("%d %s, want %d %s", response.Code, response.Body, c.status, c.code)
			}
			if got := response.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type is %q", got)
			}
			if retry := response.Header().Get("Retry-After"); (retry == "1") != (c.status == 429) {
				t.Errorf("Retry-After is %q", retry)
			}
		})
	}
}

// The parser's worst cases grow with the square of their marks; a text of that kind is given as it is.
func TestRenderGivesUpOnTextsThatCostTooMuch(t *testing.T) {
	hostile := strings.Repeat("_a*", 20_000)
	got := render(t, handler(), hostile+"\n<b>", "*fine*")
	if want := "<p>" + hostile + "<br>\n&lt;b&gt;</p>\n"; got[0] != want {
		t.Error("a hostile text was not given as plain text")
	}
	if got[1] != "<p><em>fine</em></p>\n" {
		t.Errorf("the text after a hostile one is %q", got[1])
	}
}

// Known ways to smuggle code through Markdown and HTML sanitisers; FuzzRender goes on from them.
var attacks = []string{
	`<script>alert(1)</script>`,
	`<img src=x onerror=alert(1)>`,
	`<svg/onload=alert(1)>`,
	"<a href=\"javascript:alert(1)\">x</a>",
	`[x](javascript:alert(1))`,
	`[x](JaVaScRiPt:alert(1))`,
	`[x](&#106;avascript:alert(1))`,
	`[x](&#x6a&#x61vascript&colon;alert(1))`,
	"[x](java\tscript:alert(1))",
	"[x](<java\nscript:alert(1)>)",
	"[x](\x01javascript:alert(1))",
	`[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)`,
	`[x](vbscript:msgbox(1))`,
	`[x](//evil.example)`,
	`[x](/admin)`,
	`[x](https://a.example/" onmouseover="alert(1))`,
	`[x](https://a.example 'title" onmouseover="alert(1)')`,
	`![x](x" onerror="alert(1))`,
	`![x](javascript:alert(1))`,
	`<javascript:alert(1)>`,
	"<https://a.example/\"onclick=alert(1)>",
	"```\" onmouseover=\"alert(1)\nx\n```",
	"```html\"><script>alert(1)</script>\nx\n```",
	"[x]: javascript:alert(1)\n\n[x]",
	"[`</code><script>alert(1)</script>`](https://a.example)",
	"<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
	"<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
	"|a|\n|-|\n|<img src=x onerror=alert(1)>|",
	"# x {onclick=alert(1)}",
	"<!-- --!><img src=x onerror=alert(1)> -->",
	"https://a.example/<script>",
	"www.a.example/\"onmouseover=alert(1)",
	"a@b.example\"onclick=alert(1)",
}

// allowed are the elements that rendering makes, with their attributes.
var allowed = map[string][]string{
	"p": nil, "br": nil, "hr": nil, "h3": nil, "h4": nil, "h5": nil, "h6": nil, "blockquote": nil, "pre": nil,
	"ul": nil, "ol": {"start"}, "li": nil, "strong": nil, "em": nil, "del": nil, "code": {"class"}, "table": nil,
	"thead": nil, "tbody": nil, "tr": nil, "th": {"align"}, "td": {"align"}, "a": {"href", "rel", "target"},
	"input": {"type", "checked", "disabled"},
}

var languageClass = regexp.MustCompile(`^language-[\w+#.-]{1,40}$`)

func checkSafe(t *testing.T, source, rendered string) {
	t.Helper()
	tokens := html.NewTokenizer(strings.NewReader(rendered))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return
		case html.CommentToken, html.DoctypeToken:
			t.Errorf("%q gives %q", source, rendered)
		case html.StartTagToken, html.SelfClosingTagToken, html.EndTagToken:
			checkTag(t, source, tokens.Token())
		}
	}
}

func checkTag(t *testing.T, source string, tag html.Token) {
	t.Helper()
	attributes, known := allowed[tag.Data]
	if !known {
		t.Errorf("%q gives <%s>", source, tag.Data)
	}
	for _, a := range tag.Attr {
		switch {
		case !slices.Contains(attributes, a.Key):
			t.Errorf("%q gives <%s %s>", source, tag.Data, a.Key)
		case a.Key == "href":
			address, err := url.Parse(a.Val)
			if err != nil || !slices.Contains([]string{"http", "https", "mailto"}, address.Scheme) {
				t.Errorf("%q gives a link to %q", source, a.Val)
			}
		case a.Key == "class" && !languageClass.MatchString(a.Val):
			t.Errorf("%q gives the class %q", source, a.Val)
		}
	}
}

func TestRenderLetsNoAttackThrough(t *testing.T) {
	for i, rendered := range render(t, handler(), attacks...) {
		checkSafe(t, attacks[i], rendered)
	}
}

func FuzzRender(f *testing.F) {
	h := handler()
	for _, attack := range attacks {
		f.Add(attack)
	}
	f.Fuzz(func(t *testing.T, source string) {
		rendered := render(t, h, source)[0]
		checkSafe(t, source, rendered)
		if strings.Contains(strings.ToLower(rendered), "<script") {
			t.Errorf("%q gives %q", source, rendered)
		}
	})
}
