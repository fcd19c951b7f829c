package mongotest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// buildPatience bounds the build of FerretDB, another process's too. It may have to download a hundred modules.
const buildPatience = 8 * time.Minute

// build gives the path of FerretDB's binary. It is built once for all checkouts and test processes of a user.
func build() (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	key, err := buildKey(source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "parley-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "ferretdb-"+key)
	return binary, buildOnce(source, binary)
}

// sourceDir is the folder of FerretDB's module.
func sourceDir() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "ferretdb")
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		return "", fmt.Errorf("its source is not where this package was compiled, or that was with -trimpath: %w", err)
	}
	return dir, nil
}

// buildKey names all that the binary is made of.
func buildKey(source string) (string, error) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%s %s %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, name, len(data))
		hash.Write(data)
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:8]), nil
}

// buildOnce makes the binary where it is not there. Test processes run side by side: the first builds, the others wait.
func buildOnce(source, binary string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildPatience)
	defer cancel()
	lock := flock.New(binary + ".lock")
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return fmt.Errorf("wait for another build: %w", err)
	}
	defer lock.Close()
	if _, err := os.Stat(binary); err == nil {
		return nil
	}
	work, err := os.MkdirTemp(filepath.Dir(binary), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	// A build that is broken off leaves nothing under the binary's own name.
	built := filepath.Join(work, "ferretdb")
	if err := goBuild(ctx, source, built); err != nil {
		return err
	}
	return os.Rename(built, binary)
}

// goBuild builds the module in the folder source as it is.
func goBuild(ctx context.Context, source, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags=ferretdb_no_postgresql", "-o", binary, ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
