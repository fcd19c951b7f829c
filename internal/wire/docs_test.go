package wire

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/parley-chat/parley/chat"
)

// document is what these tests read of docs/asyncapi.yaml.
type document struct {
	Channels struct {
		Socket struct{ Messages map[string]reference }
	}
	Operations map[string]struct {
		Action   string
		Messages []reference
		Reply    struct{ Messages []reference }
	}
	Components struct {
		Messages map[string]messageSpec
		Schemas  map[string]*schema
	}
}

type reference struct {
	To string `yaml:"$ref"`
}

type messageSpec struct {
	Payload  *schema
	Examples []struct{ Payload map[string]any }
}

// schema is a JSON Schema, with the keywords that these tests understand.
type schema struct {
	Ref                  string `yaml:"$ref"`
	Type, Const, Pattern string
	Enum, Required       []string
	Properties           map[string]*schema
	AdditionalProperties *schema `yaml:"additionalProperties"`
	MinLength            *int    `yaml:"minLength"`
	MaxLength            *int    `yaml:"maxLength"`
	Minimum, Maximum     *int64
	OneOf                []*schema `yaml:"oneOf"` // of a value that may be null: its schema, then that of null

	Others map[string]any `yaml:",inline"`
}

// annotations are the keywords that allow and forbid nothing.
var annotations = []string{"default", "description", "format"}

// resolve follows a reference. It panics at what these tests would pass over otherwise.
func (d *document) resolve(s *schema) *schema {
	for keyword := range s.Others {
		if !slices.Contains(annotations, keyword) {
			panic("the keyword " + keyword + " is not understood")
		}
	}
	if s.Ref == "" {
		return s
	}
	to := d.Components.Schemas[s.name()]
	if to == nil {
		panic(s.Ref + " leads to no schema")
	}
	return d.resolve(to)
}

// name is that of the schema which s refers to.
func (s *schema) name() string { return strings.TrimPrefix(s.Ref, "#/components/schemas/") }

// directed are the documented frames of one direction by type.
type directed map[string]messageSpec

func readDocument(t *testing.T) (doc *document, client, server directed) {
	t.Helper()
	doc, client, server = &document{}, directed{}, directed{}
	if err := yaml.Unmarshal(read(t, "../../docs/asyncapi.yaml"), doc); err != nil {
		t.Fatal(err)
	}
	for _, operation := range doc.Operations {
		to := server
		if operation.Action == "receive" {
			to = client
		}
		doc.add(t, to, operation.Messages)
		doc.add(t, server, operation.Reply.Messages)
	}
	if n := len(client) + len(server); n != len(doc.Components.Messages) {
		t.Errorf("%d messages are described, %d are in an operation", len(doc.Components.Messages), n)
	}
	return doc, client, server
}

// add takes in the messages that an operation refers to, by way of the channel.
func (d *document) add(t *testing.T, to directed, references []reference) {
	t.Helper()
	for _, r := range references {
		name := strings.TrimPrefix(r.To, "#/channels/socket/messages/")
		m, ok := d.Components.Messages[name]
		if !ok || d.Channels.Socket.Messages[name].To != "#/components/messages/"+name {
			t.Fatalf("an operation refers to %s, which leads to no message", r.To)
		}
		kind := m.Payload.Properties["type"].Const
		if old := to[kind].Payload; kind == "" || old != nil && old != m.Payload {
			t.Fatalf("message %s has the type %q, which is none or another's", name, kind)
		}
		to[kind] = m
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keys[V any](m map[string]V) []string { return slices.Collect(maps.Keys(m)) }

// same compares without order.
func same(t *testing.T, what string, documented, coded []string) {
	t.Helper()
	documented, coded = slices.Sorted(slices.Values(documented)), slices.Sorted(slices.Values(coded))
	if !slices.Equal(documented, coded) {
		t.Errorf("%s: documented are\n%q, the code has\n%q", what, documented, coded)
	}
}

func TestDocumentHasTheClientsFrames(t *testing.T) {
	_, client, _ := readDocument(t)
	same(t, "types", keys(client), keys(frameTypes))
	for kind, m := range client {
		names, required := []string{"type", "ref"}, []string{"type"}
		for _, rule := range frameTypes[kind].fields {
			names = append(names, rule.name)
			if rule.required {
				required = append(required, rule.name)
			}
		}
		same(t, "fields of "+kind, keys(m.Payload.Properties), names)
		same(t, "required fields of "+kind, m.Payload.Required, required)
	}
}

// serverFrames pair all that the server says with the structs that it is written from.
var serverFrames = []struct{ said, frame any }{
	{chat.MessageCreated{}, createdFrame{}},
	{chat.MessageDelta{}, deltaFrame{}},
	{chat.MessageCompleted{}, completedFrame{}},
	{chat.SessionUpdated{}, updatedFrame{}},
	{chat.AgentJoined{}, authorFrame{}},
	{chat.AgentLeft{}, authorFrame{}},
	{chat.SessionEnded{}, endedFrame{}},
	{chat.SessionOpened{}, openedFrame{}},
	{chat.ErrorNotice{}, errorFrame{}},
	{chat.Typing{}, typingFrame{}},
	{chat.ConnectionLimit{}, limitFrame{}},
	{chat.AuthExpiring{}, expiryFrame{}},
	{chat.AuthRefreshed{}, expiryFrame{}},
	{chat.ServerDraining{}, drainingFrame{}},
	{chat.Pong{}, answer{}},
}

func TestDocumentHasTheServersFrames(t *testing.T) {
	doc, _, server := readDocument(t)
	var types, said []string
	for _, f := range serverFrames {
		var data []byte
		switch said := f.said.(type) {
		case chat.EventBody:
			data = AppendEvent(nil, &chat.Event{From: 2, Seq: 2, Body: said})
		case chat.Notice:
			data = AppendNotice(nil, said, "")
		}
		var written map[string]any
		if err := json.Unmarshal(data, &written); err != nil {
			t.Fatal(err)
		}
		kind := written["type"].(string)
		types, said = append(types, kind), append(said, reflect.TypeOf(f.said).Name())
		if _, always := fieldsOf(reflect.TypeOf(f.frame)); len(always) != len(written) {
			t.Errorf("%s is written as %s, which is no %T", kind, data, f.frame)
		}
		if m, ok := server[kind]; ok {
			doc.compare(t, kind, m.Payload, reflect.TypeOf(f.frame))
		}
	}
	same(t, "types", keys(server), types)
	same(t, "what the server says, in this test", said, receiversOf(t, "eventBody", "notice"))
}

// fieldsOf gives the JSON fields of a struct, and the names of those that are always written.
func fieldsOf(s reflect.Type) (fields map[string]reflect.Type, always []string) {
	fields = make(map[string]reflect.Type)
	for _, f := range reflect.VisibleFields(s) {
		if f.Anonymous {
			continue
		}
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
		if option != "omitempty" {
			always = append(always, name)
		}
	}
	return fields, always
}

// schemaTypes are what the kinds of Go's types are called in a schema.
var schemaTypes = map[reflect.Kind]string{
	reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer",
	reflect.Map: "object", reflect.Struct: "object",
}

// compare holds a schema against the type that is written by it.
func (d *document) compare(t *testing.T, path string, s *schema, typ reflect.Type) {
	t.Helper()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() == reflect.Pointer {
		if len(s.OneOf) != 2 || s.OneOf[1].Type != "null" {
			t.Errorf("%s may be null, and is not documented so", path)
			return
		}
		typ, s = typ.Elem(), s.OneOf[0]
	}
	to := d.resolve(s)
	switch isEnum := typ.Kind() == reflect.String && typ.PkgPath() != ""; {
	case typ == reflect.TypeFor[Time](), isEnum:
		if s.name() != typ.Name() {
			t.Errorf("%s is documented as %q, and is a %v", path, s.Ref, typ)
		}
		return
	case to.Const == "" && to.Type != schemaTypes[typ.Kind()]:
		t.Errorf("%s is documented as %s, and is a %v", path, to.Type, typ)
	case typ.Kind() != reflect.Struct:
		return
	}
	fields, always := fieldsOf(typ)
	same(t, "fields of "+path, keys(to.Properties), keys(fields))
	same(t, "fields that are always in "+path, to.Required, always)
	for name, property := range to.Properties {
		if field, ok := fields[name]; ok {
			d.compare(t, path+"."+name, property, field)
		}
	}
}

// chatDeclarations gives what package chat declares.
func chatDeclarations(t *testing.T) (all []ast.Decl) {
	t.Helper()
	paths, err := filepath.Glob("../../chat/*.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("there is no package chat (%v)", err)
	}
	for _, path := range paths {
		file, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file.Decls...)
	}
	return all
}

// receiversOf gives the types of package chat that have one of these methods.
func receiversOf(t *testing.T, methods ...string) (types []string) {
	t.Helper()
	for _, decl := range chatDeclarations(t) {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil && slices.Contains(methods, f.Name.Name) {
			types = append(types, f.Recv.List[0].Type.(*ast.Ident).Name)
		}
	}
	return types
}

// constants gives the string constants of package chat that have a type, by its name.
func constants(t *testing.T) map[string][]string {
	t.Helper()
	byType := make(map[string][]string)
	for _, decl := range chatDeclarations(t) {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != gotoken.CONST {
			continue
		}
		for _, spec := range group.Specs {
			spec := spec.(*ast.ValueSpec)
			typ, ok := spec.Type.(*ast.Ident)
			if !ok {
				continue
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == gotoken.STRING {
				value, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				byType[typ.Name] = append(byType[typ.Name], value)
			}
		}
	}
	return byType
}

func TestDocumentHasTheCodesAndStates(t *testing.T) {
	doc, _, _ := readDocument(t)
	documented := make(map[string][]string)
	for name, s := range doc.Components.Schemas {
		if s.Enum != nil {
			documented[name] = s.Enum
		}
	}
	coded := constants(t)
	delete(coded, "SessionSort") // is asked for over HTTP, not in a frame
	same(t, "enumerations", keys(documented), keys(coded))
	for name, values := range coded {
		same(t, name, documented[name], values)
	}
}

func TestDocumentHasTheLimits(t *testing.T) {
	doc, client, _ := readDocument(t)
	checked := 0
	for kind, m := range client {
		for field, s := range m.Payload.Properties {
			try := func(value any, want bool) {
				checked++
				frame := maps.Clone(m.Examples[0].Payload)
				frame[field] = value
				if err := check(t, frame); (err == nil) != want {
					t.Errorf("%s with %s at a limit, %.20v…, is answered with %v", kind, field, value, err)
				}
			}
			s = doc.resolve(s)
			if s.MinLength != nil {
				try(strings.Repeat("é", *s.MinLength), true)
				try(strings.Repeat("é", *s.MinLength-1), false)
			}
			if s.MaxLength != nil {
				try(strings.Repeat("x", *s.MaxLength), true)
				try(strings.Repeat("x", *s.MaxLength+1), false)
			}
			if s.Minimum != nil && s.Maximum != nil {
				try(*s.Minimum, true)
				try(*s.Minimum-1, false)
				try(*s.Maximum, true)
				try(*s.Maximum+1, false)
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d values were tried", checked)
	}
	pattern := regexp.MustCompile(doc.Components.Schemas["MessageID"].Pattern)
	for _, id := range []string{"", "a", "Az09_-", "a b", "é", "a\n", strings.Repeat("x", 64), strings.Repeat("x", 65)} {
		if pattern.MatchString(id) != ValidMessageID(id) {
			t.Errorf("the document and the code do not agree on the message ID %q", id)
		}
	}
}

// check takes a client's frame through all steps.
func check(t *testing.T, frame map[string]any) error {
	t.Helper()
	data, err := json.Marshal(frame)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Decode(data)
	if err == nil {
		err = f.Validate()
	}
	if err == nil {
		err = f.Sanitize()
	}
	return err
}

// conforms holds a value against a schema. A field that the schema does not have is an error too: in an example it is
// a mistake.
func (d *document) conforms(s *schema, path string, value any) error {
	s = d.resolve(s)
	var ok bool
	switch value := value.(type) {
	case map[string]any:
		return d.objectConforms(s, path, value)
	case string:
		n := utf8.RuneCountInString(value)
		ok = (s.Type == "string" || s.Const == value) && (s.Enum == nil || slices.Contains(s.Enum, value)) &&
			(s.MinLength == nil || n >= *s.MinLength) && (s.MaxLength == nil || n <= *s.MaxLength) &&
			regexp.MustCompile(s.Pattern).MatchString(value)
	case int:
		return d.conforms(s, path, float64(value))
	case float64:
		ok = s.Type == "integer" && value == math.Trunc(value) &&
			(s.Minimum == nil || value >= float64(*s.Minimum)) && (s.Maximum == nil || value <= float64(*s.Maximum))
	case bool:
		ok = s.Type == "boolean"
	}
	if !ok {
		return fmt.Errorf("%s is %v, which its schema does not allow", path, value)
	}
	return nil
}

func (d *document) objectConforms(s *schema, path string, object map[string]any) error {
	if s.Type != "object" {
		return fmt.Errorf("%s is an object", path)
	}
	for _, name := range s.Required {
		if _, ok := object[name]; !ok {
			return fmt.Errorf("%s lacks %s", path, name)
		}
	}
	for name, value := range object {
		property := cmp.Or(s.Properties[name], s.AdditionalProperties)
		if property == nil {
			return fmt.Errorf("%s has a field %s", path, name)
		}
		if err := d.conforms(property, path+"."+name, value); err != nil {
			return err
		}
	}
	return nil
}

func TestExamplesOfTheDocumentAreFrames(t *testing.T) {
	doc, client, server := readDocument(t)
	for _, direction := range []directed{client, server} {
		for kind, m := range direction {
			if len(m.Examples) == 0 {
				t.Errorf("%s has no example", kind)
			}
			for _, example := range m.Examples {
				if err := doc.conforms(m.Payload, kind, example.Payload); err != nil {
					t.Error(err)
				}
			}
		}
	}
	for kind, m := range client {
		for _, example := range m.Examples {
			if err := check(t, example.Payload); err != nil {
				t.Errorf("an example of %s is refused: %v", kind, err)
			}
		}
	}
}

var fence = regexp.MustCompile("(?ms)^```(?:json|text)\n(.*?)^```$")

// pageExamples gives the JSON objects of a page; in its conversations an arrow stands before each.
func pageExamples(t *testing.T, page string) (all []map[string]any) {
	t.Helper()
	for _, block := range submatches(fence, page) {
		dec := json.NewDecoder(strings.NewReader(strings.NewReplacer("→ ", "", "← ", "").Replace(block)))
		for {
			var object map[string]any
			err := dec.Decode(&object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("an example is no JSON: %v\n%s", err, block)
			}
			all = append(all, object)
		}
	}
	return all
}

func submatches(pattern *regexp.Regexp, text string) (all []string) {
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

func TestExamplesOfThePageAreFrames(t *testing.T) {
	doc, client, server := readDocument(t)
	shownByClient, shownByServer := make(map[string]bool), make(map[string]bool)
	for _, example := range pageExamples(t, string(read(t, "../../docs/PROTOCOL.md"))) {
		kind, ok := example["type"].(string)
		if !ok {
			continue // of HTTP
		}
		errClient, errServer := errors.New("no client sends it"), errors.New("no server sends it")
		if m, ok := client[kind]; ok {
			errClient = cmp.Or(doc.conforms(m.Payload, kind, example), check(t, example))
		}
		if m, ok := server[kind]; ok {
			errServer = doc.conforms(m.Payload, kind, example)
		}
		switch {
		case errClient == nil:
			shownByClient[kind] = true
		case errServer == nil:
			shownByServer[kind] = true
		default:
			t.Errorf("the example %v: %v; %v", example, errClient, errServer)
		}
	}
	same(t, "clients' frames with an example", keys(shownByClient), keys(client))
	same(t, "servers' frames with an example", keys(shownByServer), keys(server))
}

func TestPageHasTheErrorCodes(t *testing.T) {
	_, section, _ := strings.Cut(string(read(t, "../../docs/PROTOCOL.md")), "\n## 9. ")
	section, _, _ = strings.Cut(section, "\n## ")
	table, retryable, _ := strings.Cut(section, "\nRetryable are ")
	codes := constants(t)["Code"]
	same(t, "codes", submatches(regexp.MustCompile("(?m)^\\| `([a-z_]+)`"), table), codes)
	same(t, "retryable codes", submatches(regexp.MustCompile("`([a-z_]+)`"), retryable),
		slices.DeleteFunc(codes, func(c string) bool { return !chat.Code(c).Retryable() }))
}
