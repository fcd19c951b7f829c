package manifests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// repository is the root of the repository that holds the manifests.
const repository = "../../.."

// parleyBinary is the command that the init container and the server run, built once.
var parleyBinary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "parley-manifests")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	parleyBinary = filepath.Join(dir, "parley")
	if out, err := exec.Command("go", "build", "-C", repository, "-o", parleyBinary, "./cmd/parley").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building parley: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
