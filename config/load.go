package config

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

// Load makes the configuration of [Default], the YAML file at path (empty: none), environ (as of [os.Environ]) and
// overrides by dotted key, of which each goes over the ones before it.
//
// The error joins every [Problem] that there is, those of [Config.Validate] included; [Problems] lists them. The
// configuration is what could be read, also where there is an error.
func Load(path string, environ []string, overrides map[string]any) (Config, error) {
	return LoadOver(Default(), path, environ, overrides)
}

// LoadOver is [Load] with other defaults.
//
// A default that is only there to be below another value follows it down: with stream_timeout at 10s,
// first_token_timeout is 10s too unless it is set.
func LoadOver(defaults Config, path string, environ []string, overrides map[string]any) (Config, error) {
	var ps problems
	layers := koanf.New(".")
	add := func(values map[string]any, delimiter string) {
		if err := layers.Load(confmap.Provider(values, delimiter), nil); err != nil {
			panic(err) // a map is there already: nothing is left to fail
		}
	}
	file, readable := readFile(path, &ps)
	add(file, "")
	values, sources := environment(environ, &ps)
	add(values, ".")
	add(overrides, ".")
	for key := range overrides {
		delete(sources, key)
	}

	cfg := defaults
	d := decoder{problems: &ps, sources: sources}
	d.section("", layers.Raw(), reflect.ValueOf(&cfg).Elem())
	followDown(&cfg, layers.Exists)
	resolveKeys(&cfg, environ, &ps)
	checkFiles(cfg, &ps)
	if readable { // else what seems to be missing may stand in the file
		ps.addNew(cfg.check())
	}
	return cfg, ps.join()
}

// FileFlag is the key of a [Problem] with the whole file.
const FileFlag = "--config"

func readFile(path string, ps *problems) (values map[string]any, readable bool) {
	if path == "" {
		return nil, true
	}
	b, err := os.ReadFile(path)
	if err != nil {
		ps.add(FileFlag, "cannot read "+path+": "+withoutPath(err).Error(), fixFile)
		return nil, false
	}
	if values, err = yaml.Parser().Unmarshal(b); err != nil {
		ps.add(FileFlag, path+" is not a YAML file of keys and values"+yamlDetail(err), "correct it there")
		return nil, false
	}
	return values, true
}

var (
	yamlLine = regexp.MustCompile(`line \d+`)
	// yamlMessage matches those messages of the parser that quote nothing of the file but keys.
	yamlMessage = regexp.MustCompile(`(did not find|could not find|mapping values|mapping key "[\w.]+" already|` +
		`found (character|a tab|unknown escape|unexpected))[^\n]*`)
)

// yamlDetail is what may be shown of a parser's error, which can hold pieces of the file, secrets among them.
func yamlDetail(err error) string {
	var detail []string
	if line := yamlLine.FindString(err.Error()); line != "" {
		detail = append(detail, line)
	}
	if message := yamlMessage.FindString(err.Error()); message != "" {
		detail = append(detail, message)
	}
	if len(detail) == 0 {
		return ""
	}
	return " (" + strings.Join(detail, ": ") + ")"
}

// followDown lowers the defaults that nobody set to values that they must not exceed.
func followDown(cfg *Config, isSet func(key string) bool) {
	for _, b := range cfg.bounds() {
		if !isSet(b.key) && *b.limit > 0 {
			*b.value = min(*b.value, *b.limit)
		}
	}
	admin, requests := &cfg.RateLimit.Admin, cfg.RateLimit.Requests
	if !isSet("rate_limit.admin") && requests.Limit > 0 && admin.PerSecond() >= requests.PerSecond() {
		// A quarter, as the defaults are; of a single request, one in four windows.
		*admin = Rate{Limit: requests.Limit / 4, Window: requests.Window}
		if admin.Limit == 0 {
			*admin = Rate{Limit: 1, Window: 4 * requests.Window}
		}
	}
}

// resolveKeys fills the providers' API keys from where the configuration says they are.
func resolveKeys(cfg *Config, environ []string, ps *problems) {
	cfg.LLM.Providers = slices.Clone(cfg.LLM.Providers) // they may be the caller's defaults
	for i := range cfg.LLM.Providers {
		p, key := &cfg.LLM.Providers[i], at("llm.providers", i)
		switch {
		case p.APIKey != "" && p.APIKeyFile != "":
			ps.add(key, "has both an api_key and an api_key_file", "keep one of the two")
		case p.APIKey != "":
		case p.APIKeyFile != "":
			secret, err := readSecret(p.APIKeyFile)
			if err != nil {
				ps.add(key+".api_key_file", "names a file that cannot be read: "+err.Error(), fixFile)
			}
			p.APIKey = secret
		case p.APIKeyEnv != "":
			if p.APIKey = lookup(environ, p.APIKeyEnv); p.APIKey == "" {
				ps.add(key+".api_key_env", "names an environment variable that is not set",
					"set it, or remove api_key_env if the provider needs no key")
			}
		}
	}
}

// lookup finds a variable in environ. The last one of a name counts, as for a process that is started with environ.
func lookup(environ []string, name string) string {
	found := ""
	for _, entry := range environ {
		if n, value, _ := strings.Cut(entry, "="); n == name {
			found = value
		}
	}
	return found
}

// checkFiles tries the files that are read at start.
func checkFiles(cfg Config, ps *problems) {
	type file struct{ key, path string }
	files := []file{
		{"server.tls.cert_file", cfg.Server.TLS.CertFile},
		{"server.tls.key_file", cfg.Server.TLS.KeyFile},
		{"auth.jwt_public_key_file", cfg.Auth.JWTPublicKeyFile},
		{"storage.encryption.keyset_file", cfg.Storage.Encryption.KeysetFile},
	}
	for i, p := range cfg.LLM.Providers {
		files = append(files, file{at("llm.providers", i) + ".ca_file", p.CAFile})
	}
	for _, f := range files {
		if f.path == "" {
			continue
		}
		if file, err := os.Open(f.path); err != nil {
			ps.add(f.key, "names a file that cannot be read: "+withoutPath(err).Error(), fixFile)
		} else {
			_ = file.Close() // it was only opened
		}
	}
	for i, p := range cfg.LLM.Providers {
		key := at("llm.providers", i) + ".ca_file"
		if pem, err := os.ReadFile(p.CAFile); err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			ps.add(key, "names a file without any certificate", "name one that holds the authority's certificate, as PEM")
		}
	}
	if pair := cfg.Server.TLS; pair.CertFile != "" && pair.KeyFile != "" && !ps.touch("server.tls") {
		if _, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile); err != nil {
			ps.add("server.tls", "the two files are no certificate with its key: "+err.Error(),
				"give cert_file the certificate with its chain, and key_file its key, both as PEM")
		}
	}
}
