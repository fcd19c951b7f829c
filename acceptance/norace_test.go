//go:build !race && unix

package acceptance_test

// raceEnabled builds the binaries under test with the race detector where the tests have it.
const raceEnabled = false
