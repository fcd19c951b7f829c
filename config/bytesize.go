package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes. In text it is a whole number with an optional unit: B, KiB, MiB, GiB, TiB (powers of
// 1024), KB, MB, GB or TB (powers of 1000), in any case.
type ByteSize int64

var byteUnits = []struct {
	name string
	size ByteSize
}{
	// A name that ends with another one stands before it.
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3},
	{"B", 1},
}

var errByteSize = errors.New("not a number of bytes")

// UnmarshalText reads the forms that the type's comment gives.
func (b *ByteSize) UnmarshalText(text []byte) error {
	number, unit := strings.TrimSpace(string(text)), ByteSize(1)
	for _, u := range byteUnits {
		if cut := len(number) - len(u.name); cut > 0 && strings.EqualFold(number[cut:], u.name) {
			number, unit = strings.TrimSpace(number[:cut]), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || ByteSize(n) > math.MaxInt64/unit {
		return errByteSize
	}
	*b = ByteSize(n) * unit
	return nil
}

// String gives the size in the largest binary unit of which it is a whole multiple.
func (b ByteSize) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText gives the form of String.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
