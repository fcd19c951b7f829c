package mongotest_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// patience bounds what tests wait for. It is long, so that a slow machine fails none.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Main(m)) }
