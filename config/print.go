package config

import (
	_ "embed"
	"net/url"
	"reflect"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

//go:embed example.yaml
var example string

// Example is a commented configuration file with all keys and their defaults. It is valid as soon as a JWT secret and
// the API key of its sample provider are in the environment.
func Example() string { return example }

const redacted = "REDACTED"

// Redacted is the configuration as YAML, without any secret: those that are set read REDACTED, also where they are
// part of a URL.
func (c Config) Redacted() string {
	b, err := yaml.Marshal(toYAML(reflect.ValueOf(c)))
	if err != nil {
		panic(err) // values of Config can be written
	}
	return string(b)
}

// toYAML makes a node of a value; a section keeps the order of its fields.
func toYAML(v reflect.Value) *yaml.Node {
	node := &yaml.Node{}
	switch {
	case isSection(v.Type()):
		node.Kind = yaml.MappingNode
		for f, field := range v.Fields() {
			value := toYAML(field)
			if field.Kind() == reflect.String {
				value.SetString(redact(f, field.String()))
			}
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name(f)}, value)
		}
	case v.Kind() == reflect.Slice:
		node.Kind = yaml.SequenceNode
		for i := range v.Len() {
			node.Content = append(node.Content, toYAML(v.Index(i)))
		}
	default:
		if err := node.Encode(v.Interface()); err != nil {
			panic(err)
		}
	}
	return node
}

func redact(f reflect.StructField, value string) string {
	switch {
	case value == "":
		return ""
	case name(f) == "uri":
		return redactMongoURI(value)
	case isSecret(f):
		return redacted
	case slices.Contains([]string{"base_url", "jwks_url", "url", "proxy", "otlp_endpoint"}, name(f)):
		return redactURL(value)
	}
	return value
}

// mongoURI matches a connection string of which it is certain what is the credentials and what the hosts.
var mongoURI = regexp.MustCompile(`^(mongodb(?:\+srv)?://)([^@/?]*@)?` +
	`([A-Za-z0-9._-]+(?::[0-9]+)?(?:,[A-Za-z0-9._-]+(?::[0-9]+)?)*(?:/[A-Za-z0-9_-]*)?)(\?.*)?$`)

// redactMongoURI leaves the hosts and the database. Options can hold passwords and tokens too.
func redactMongoURI(uri string) string {
	parts := mongoURI.FindStringSubmatch(uri)
	if parts == nil {
		return redacted
	}
	shown := parts[1]
	if parts[2] != "" {
		shown += redacted + "@"
	}
	shown += parts[3]
	if parts[4] != "" {
		shown += "?" + redacted
	}
	return shown
}

func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		return redacted
	}
	if u.User != nil {
		u.User = url.User(redacted)
	}
	if u.RawQuery != "" {
		u.RawQuery = redacted
	}
	u.Fragment, u.RawFragment = "", ""
	return u.String()
}
