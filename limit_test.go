package parley

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/parley-chat/parley/config"
)

func TestTooFewOpenFilesAreWarnedOf(t *testing.T) {
	for limit, warned := range map[uint64]bool{1024: true, 20_199: true, 20_200: false, 1 << 30: false, 0: false} { // 0: not known
		var log bytes.Buffer
		s := &Server{cfg: config.Default(), log: slog.New(slog.NewTextHandler(&log, nil))}
		s.warnOfFewFiles(limit)
		if got := strings.Contains(log.String(), "websocket.max_connections") && strings.Contains(log.String(), "level=WARN"); got != warned {
			t.Errorf("with a limit of %d: warned %v, want %v: %s", limit, got, warned, log.String())
		}
	}
}
