//go:build unix

package acceptance_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// The binaries under test, built once.
var (
	parleyBinary   string
	upstreamBinary string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "parley-acceptance")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	parleyBinary, upstreamBinary = filepath.Join(dir, "parley"), filepath.Join(dir, "upstream")
	for binary, pkg := range map[string]string{
		parleyBinary:   "github.com/parley-chat/parley/cmd/parley",
		upstreamBinary: "github.com/parley-chat/parley/internal/llm/llmtest/upstream",
	} {
		args := []string{"build", "-o", binary}
		if raceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building %s: %v\n%s", pkg, err, out)
			return 1
		}
	}
	code := mongotest.Main(m).Run()
	keepSecret("auth.jwt_secret", secret)
	if !checkSecrets(os.Stdout) && code == 0 {
		code = 1
	}
	return code
}
