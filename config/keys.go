package config

import (
	"reflect"
	"strings"
)

// key is one value of the configuration, found by reflection over [Config].
type key struct {
	path   string // dotted; an element of a list has [] after the list's name
	secret bool
	inList bool
	typ    reflect.Type
}

// Keys lists the dotted keys of all values, in the order of [Config]. The keys of a list's elements have [] after the
// list's name: llm.providers[].id.
func Keys() []string {
	var paths []string
	for _, k := range keys() {
		paths = append(paths, k.path)
	}
	return paths
}

func keys() []key { return appendKeys(nil, "", reflect.TypeFor[Config](), false) }

func appendKeys(all []key, path string, section reflect.Type, inList bool) []key {
	for f := range section.Fields() {
		k := key{path: join(path, name(f)), secret: isSecret(f), inList: inList, typ: f.Type}
		switch {
		case isSection(f.Type):
			all = appendKeys(all, k.path, f.Type, inList)
		case f.Type.Kind() == reflect.Slice && isSection(f.Type.Elem()):
			all = appendKeys(all, k.path+"[]", f.Type.Elem(), true)
		default:
			all = append(all, k)
		}
	}
	return all
}

// isSection reports whether a type has keys of its own. A struct that is read from text has none.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textUnmarshaler)
}

func name(f reflect.StructField) string   { return f.Tag.Get("koanf") }
func isSecret(f reflect.StructField) bool { return f.Tag.Get("secret") != "" }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// nearestKey finds the key or section that path was most likely meant to be: the one that the fewest edits lead to.
// A right name in a wrong section counts as two edits.
func nearestKey(path string) string {
	const wrongSection = 2
	best, bestDistance := "", -1
	for _, candidate := range sections() {
		distance := editDistance(path, candidate)
		if d := wrongSection + editDistance(lastName(path), lastName(candidate)); d < distance {
			distance = d
		}
		if bestDistance < 0 || distance < bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

// sections lists the keys together with the sections and lists that they are part of.
func sections() []string {
	var all []string
	seen := map[string]bool{}
	for _, path := range Keys() {
		for i, r := range path + "." {
			if r == '.' || r == '[' {
				if s := path[:i]; !seen[s] && !strings.HasSuffix(s, "]") {
					seen[s] = true
					all = append(all, s)
				}
			}
		}
	}
	return all
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// nearest finds the candidate that the fewest edits lead to.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", -1
	for _, c := range candidates {
		if d := editDistance(word, c); bestDistance < 0 || d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance is Levenshtein's: the fewest insertions, deletions and substitutions of a byte that make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
