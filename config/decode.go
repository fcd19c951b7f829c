package config

import (
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

// decoder lays the values of the merged layers over a [Config]. It goes on after a value that it cannot use, so that
// all of them are reported; such a value leaves the field as it was.
type decoder struct {
	problems *problems
	sources  map[string]string // key → the environment variable that it comes from
}

func (d *decoder) section(path string, values map[string]any, dst reflect.Value) {
	fields := map[string]reflect.StructField{}
	for f := range dst.Type().Fields() {
		fields[name(f)] = f
	}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		f, known := fields[k]
		switch {
		case !known:
			d.unknown(join(path, shownName(k)))
		case values[k] != nil: // "key:" without a value leaves the default
			d.value(join(path, k), values[k], dst.FieldByIndex(f.Index), isSecret(f))
		}
	}
}

func (d *decoder) unknown(path string) {
	fix := "did you mean " + nearestKey(path) + "?"
	if slices.Contains(sections(), path) { // it was written with a dot inside of one name
		section, key, _ := strings.Cut(path, ".")
		fix = fmt.Sprintf("write %s below a line that says %q", key, section+":")
	}
	d.problems.add(path, "unknown key", fix)
}

// nameStart matches what of an unknown key's name may be shown. More than that may be a value: {jwt_secret:x}, without
// a space, is a key.
var nameStart = regexp.MustCompile(`^[A-Za-z0-9_.-]{0,60}`)

func shownName(key string) string {
	start := nameStart.FindString(key)
	if start != key {
		start += "…"
	}
	return start
}

// value sets dst, and reports what it cannot set. A value of the Go type itself is taken as it is.
func (d *decoder) value(path string, value any, dst reflect.Value, secret bool) {
	if v := reflect.ValueOf(value); v.IsValid() && v.Type() == dst.Type() {
		dst.Set(v)
		return
	}
	if isSection(dst.Type()) {
		values, ok := value.(map[string]any)
		if !ok {
			d.problems.add(path, "is not a section"+d.source(path), "give it keys of its own, one a line")
			return
		}
		d.section(path, values, dst)
		return
	}
	if dst.Kind() == reflect.Slice {
		d.list(path, value, dst)
		return
	}
	if expected := setScalar(dst, value); expected != "" {
		d.problems.add(path, "is "+describe(value, secret)+d.source(path), "it must be "+expected)
	}
}

func (d *decoder) list(path string, value any, dst reflect.Value) {
	var elements []any
	switch v := value.(type) {
	case []any:
		elements = v
	case []string:
		for _, s := range v {
			elements = append(elements, s)
		}
	case string:
		if isSection(dst.Type().Elem()) {
			d.problems.add(path, "is a text"+d.source(path), "it must be a list, in the configuration file")
			return
		}
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				elements = append(elements, s)
			}
		}
	default:
		d.problems.add(path, "is "+describe(value, true)+d.source(path), "it must be a list")
		return
	}
	list := reflect.MakeSlice(dst.Type(), len(elements), len(elements))
	for i, e := range elements {
		d.value(at(path, i), e, list.Index(i), false)
	}
	dst.Set(list)
}

// setScalar sets dst to what value says. Where it cannot, it returns what is expected.
func setScalar(dst reflect.Value, value any) (expected string) {
	text, isText := value.(string)
	text = strings.TrimSpace(text)
	switch {
	case dst.Kind() == reflect.Pointer: // nil where there is no value
		pointed := reflect.New(dst.Type().Elem())
		if expected := setScalar(pointed.Elem(), value); expected != "" {
			return expected
		}
		dst.Set(pointed)
	case dst.Type() == durationType:
		if n, isInt := asInt(value); isInt && n == 0 {
			text, isText = "0s", true
		}
		duration, err := time.ParseDuration(text)
		if !isText || err != nil {
			return "a duration with a unit, such as 500ms, 30s, 5m or 24h"
		}
		dst.SetInt(int64(duration))
	case reflect.PointerTo(dst.Type()).Implements(textUnmarshaler):
		if n, isInt := asInt(value); isInt {
			text, isText = strconv.FormatInt(n, 10), true
		}
		if !isText || dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)) != nil {
			return textForm(dst.Interface())
		}
	case dst.Kind() == reflect.String:
		if !isText {
			return "text: put it in quotes"
		}
		dst.SetString(value.(string))
	case dst.Kind() == reflect.Bool:
		b, isBool := value.(bool)
		if text == "true" || text == "false" {
			b, isBool = text == "true", true
		}
		if !isBool {
			return "true or false"
		}
		dst.SetBool(b)
	case dst.Kind() == reflect.Int:
		n, isInt := asInt(value)
		if parsed, err := strconv.ParseInt(text, 10, 64); isText && err == nil {
			n, isInt = parsed, true
		}
		if !isInt || dst.OverflowInt(n) {
			return "a whole number"
		}
		dst.SetInt(n)
	case dst.Kind() == reflect.Float64:
		n, isNumber := asFloat(value)
		if parsed, err := strconv.ParseFloat(text, 64); isText && err == nil {
			n, isNumber = parsed, true
		}
		if !isNumber || math.IsNaN(n) || math.IsInf(n, 0) {
			return "a number"
		}
		dst.SetFloat(n)
	default:
		panic("config: no way to read a " + dst.Type().String())
	}
	return ""
}

// asInt gives the whole number that YAML or a caller gave.
func asInt(value any) (int64, bool) {
	switch n := value.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(n), n <= math.MaxInt64
	}
	return 0, false
}

// asFloat gives the number that YAML or a caller gave.
func asFloat(value any) (float64, bool) {
	if f, ok := value.(float64); ok {
		return f, true
	}
	n, ok := asInt(value)
	return float64(n), ok
}

func textForm(zero any) string {
	switch zero.(type) {
	case ByteSize:
		return "a size, such as 65536, 64KiB or 256MiB"
	default: // netip.Prefix
		return "an address range (CIDR), such as 10.0.0.0/8 or 192.0.2.7/32"
	}
}

// describe names a value in a problem: the value itself only where it is no secret and short.
func describe(value any, secret bool) string {
	const long = 60
	switch v := value.(type) {
	case nil:
		return "empty"
	case map[string]any, map[any]any:
		return "a section"
	case []any:
		return "a list"
	case string:
		if !secret && len(v) <= long {
			return strconv.Quote(v)
		}
		return "a text"
	case int, int64, uint64, float64, bool:
		if !secret {
			return fmt.Sprint(v)
		}
	}
	return "not text"
}

func (d *decoder) source(path string) string {
	if variable := d.sources[path]; variable != "" {
		return " (from " + variable + ")"
	}
	return ""
}
