package config

import "reflect"

// Changed lists the dotted keys whose values differ between two configurations. A list is one key.
func Changed(a, b Config) []string {
	return appendChanged(nil, "", reflect.ValueOf(a), reflect.ValueOf(b))
}

func appendChanged(keys []string, path string, a, b reflect.Value) []string {
	for f, value := range a.Fields() {
		key, other := join(path, name(f)), b.FieldByIndex(f.Index)
		switch {
		case isSection(f.Type):
			keys = appendChanged(keys, key, value, other)
		case !reflect.DeepEqual(value.Interface(), other.Interface()):
			keys = append(keys, key)
		}
	}
	return keys
}
