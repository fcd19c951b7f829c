package journal

import (
	"bytes"
	"os"
)

// bootID names this run of the machine, as random(4) says.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(id))
}
