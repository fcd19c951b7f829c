package ui

import (
	"bytes"
	"html"
	"regexp"
	"strings"

	"github.com/microcosm-cc/bluemonday"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	goldmarkhtml "github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// Every link of a conversation leads away from it, in a window of its own, and carries nothing along.
const (
	linkRel    = "noopener noreferrer nofollow ugc"
	linkTarget = "_blank"
)

// headingOffset puts a message's headings below those of the page (its title and the conversation's).
const headingOffset = 2

// markdown turns GitHub Flavored Markdown into safe HTML. It is safe for concurrent use.
type markdown struct {
	converter goldmark.Markdown
	sanitizer *bluemonday.Policy
}

func newMarkdown() *markdown {
	converter := goldmark.New(
		goldmark.WithParser(newParser()),
		goldmark.WithExtensions(
			extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute)),
			extension.Strikethrough,
			extension.Linkify,
			extension.TaskList,
		),
		// In a chat a line that somebody ended is a line.
		goldmark.WithRendererOptions(goldmarkhtml.WithHardWraps()),
	)
	return &markdown{converter: converter, sanitizer: newSanitizer()}
}

// newParser knows no raw HTML: a tag that somebody typed is text, and is shown as it was typed.
func newParser() parser.Parser {
	return parser.NewParser(
		parser.WithBlockParsers(
			util.Prioritized(parser.NewSetextHeadingParser(), 100),
			util.Prioritized(parser.NewThematicBreakParser(), 200),
			util.Prioritized(parser.NewListParser(), 300),
			util.Prioritized(parser.NewListItemParser(), 400),
			util.Prioritized(parser.NewCodeBlockParser(), 500),
			util.Prioritized(parser.NewATXHeadingParser(), 600),
			util.Prioritized(parser.NewFencedCodeBlockParser(), 700),
			util.Prioritized(parser.NewBlockquoteParser(), 800),
			util.Prioritized(parser.NewParagraphParser(), 1000),
		),
		parser.WithInlineParsers(
			util.Prioritized(parser.NewCodeSpanParser(), 100),
			util.Prioritized(parser.NewLinkParser(), 200),
			util.Prioritized(parser.NewAutoLinkParser(), 300),
			util.Prioritized(parser.NewEmphasisParser(), 500),
		),
		parser.WithParagraphTransformers(parser.DefaultParagraphTransformers()...),
		parser.WithASTTransformers(util.Prioritized(pageRules{}, 1000)),
	)
}

// newSanitizer allows what the converter makes and nothing else. The converter makes nothing unsafe either; this is
// the second wall, for the day when one of the two has a bug.
func newSanitizer() *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	p.AllowElements("p", "br", "hr", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "li",
		"strong", "em", "del", "code", "table", "thead", "tbody", "tr", "th", "td")
	p.AllowAttrs("class").Matching(regexp.MustCompile(`^language-[\w+#.-]{1,40}$`)).OnElements("code")
	p.AllowAttrs("start").Matching(bluemonday.Integer).OnElements("ol")
	p.AllowAttrs("align").Matching(regexp.MustCompile(`^(left|center|right)$`)).OnElements("th", "td")
	p.AllowAttrs("type").Matching(regexp.MustCompile(`^checkbox$`)).OnElements("input")
	p.AllowAttrs("checked", "disabled").Matching(regexp.MustCompile(`^$`)).OnElements("input")
	p.AllowAttrs("href").OnElements("a")
	p.AllowAttrs("rel").Matching(exactly(linkRel)).OnElements("a")
	p.AllowAttrs("target").Matching(exactly(linkTarget)).OnElements("a")
	p.AllowURLSchemes("http", "https", "mailto")
	p.RequireParseableURLs(true)
	return p
}

func exactly(s string) *regexp.Regexp { return regexp.MustCompile("^" + regexp.QuoteMeta(s) + "$") }

// render gives safe HTML for a message's text.
func (m *markdown) render(source string) string {
	var out bytes.Buffer
	if err := m.converter.Convert([]byte(source), &out); err != nil {
		return plainHTML(source) // A buffer cannot fail; should a renderer, the text is shown as it is.
	}
	return m.sanitizer.SanitizeReader(&out).String()
}

// plainHTML gives a text as it is: one paragraph with its line breaks.
func plainHTML(source string) string {
	return "<p>" + strings.ReplaceAll(html.EscapeString(source), "\n", "<br>\n") + "</p>\n"
}

// markdownCost estimates the work of parsing a text: the parser's worst cases (unmatched emphasis and brackets, nested
// quotes and lists) grow with the square of their marks. An ordinary answer of 10 KB has a few hundred.
func markdownCost(source string) int {
	marks := 0
	for i := range len(source) {
		if strings.IndexByte("*_~[]()<>!", source[i]) >= 0 {
			marks++
		}
	}
	return marks * marks
}

// pageRules makes a parsed text fit the page: links get their attributes, images become links (the page loads nothing
// from elsewhere), headings start below the page's own.
type pageRules struct{}

var _ parser.ASTTransformer = pageRules{}

func (pageRules) Transform(document *ast.Document, _ text.Reader, _ parser.Context) {
	var images []*ast.Image
	_ = ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := node.(type) {
		case *ast.Image:
			images = append(images, n)
		case *ast.Heading:
			n.Level = min(n.Level+headingOffset, 6)
		case *ast.Link, *ast.AutoLink:
			markLink(n)
		}
		return ast.WalkContinue, nil
	})
	for _, image := range images {
		imageToLink(image)
	}
}

func markLink(node ast.Node) {
	node.SetAttributeString("rel", []byte(linkRel))
	node.SetAttributeString("target", []byte(linkTarget))
}

// imageToLink keeps an image's description as the text of a link to it, or as plain text inside of another link:
// HTML does not nest them.
func imageToLink(image *ast.Image) {
	if image.ChildCount() == 0 {
		image.AppendChild(image, ast.NewString(image.Destination))
	}
	parent := image.Parent()
	if insideLink(image) {
		for image.HasChildren() {
			parent.InsertBefore(parent, image, image.FirstChild())
		}
		parent.RemoveChild(parent, image)
		return
	}
	link := ast.NewLink()
	link.Destination = image.Destination
	markLink(link)
	for image.HasChildren() {
		link.AppendChild(link, image.FirstChild())
	}
	parent.ReplaceChild(parent, image, link)
}

func insideLink(node ast.Node) bool {
	for parent := node.Parent(); parent != nil; parent = parent.Parent() {
		if parent.Kind() == ast.KindLink {
			return true
		}
	}
	return false
}
