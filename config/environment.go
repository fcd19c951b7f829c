package config

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

const (
	envPrefix = "PARLEY_"

	// EnvFile is the environment variable that names the configuration file where no flag does.
	EnvFile = "PARLEY_CONFIG"
)

// linkVariable matches what Kubernetes and Docker set for a service called parley or parley-something.
var linkVariable = regexp.MustCompile(`^PARLEY_([A-Z0-9_]+_)?` +
	`(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// variable is an environment variable that sets a key.
type variable struct {
	key    string
	secret bool
	file   bool // it names a file that holds the value
}

func variables() map[string]variable {
	all := map[string]variable{}
	for _, k := range keys() {
		if k.inList {
			continue
		}
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
		all[name] = variable{key: k.path, secret: k.secret}
		if k.secret {
			all[name+"_FILE"] = variable{key: k.path, secret: true, file: true}
		}
	}
	return all
}

// environment reads the keys that environ (as of [os.Environ]) sets. sources says which variable each comes from.
func environment(environ []string, ps *problems) (values map[string]any, sources map[string]string) {
	known := variables()
	values, sources = map[string]any{}, map[string]string{}
	for _, entry := range slices.Sorted(slices.Values(environ)) { // the problems come in a fixed order
		name, value, _ := strings.Cut(entry, "=")
		v, ok := known[name]
		if !ok {
			meant := nearest(name, slices.Sorted(maps.Keys(known)))
			if isOurs(name) && editDistance(name, meant) <= maxTypo {
				ps.add(name, "unknown environment variable", "did you mean "+meant+"?")
			}
			continue
		}
		if v.secret && value == "" {
			continue // compose files and charts pass on as empty what is not set
		}
		if other := sources[v.key]; other != "" {
			ps.add(v.key, "is set by both "+other+" and "+name, "set one of the two")
			continue
		}
		sources[v.key] = name
		if v.file {
			var err error
			if value, err = readSecret(value); err != nil {
				ps.add(v.key, "cannot read the file that "+name+" names: "+err.Error(), fixFile)
				continue
			}
		}
		values[v.key] = value
	}
	return values, sources
}

// maxTypo is how many edits make a variable's name a mistyped one. What is further off from every key belongs to
// somebody else, such as a script that starts Parley.
const maxTypo = 3

// isOurs reports whether a variable claims to be Parley's configuration.
func isOurs(name string) bool {
	return strings.HasPrefix(name, envPrefix) && !strings.HasPrefix(name, envPrefix+"TEST_") &&
		name != EnvFile && !linkVariable.MatchString(name)
}

const fixFile = "name a file that Parley may read"

// readSecret reads a secret from a file, without the newlines that editors and shells put at its end. Its errors do
// not name the file, for it may be the secret that was given by mistake.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", withoutPath(err)
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" {
		return "", errors.New("it is empty")
	}
	return secret, nil
}

func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
