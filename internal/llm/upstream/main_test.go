package upstream_test

import (
	"context"
	"iter"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// environmentProxy is the one that the environment names. The standard library looks there once, and never sends to it
// what is for a loopback address.
const environmentProxy = "environment.example:3128"

func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		os.Setenv(name, "http://"+environmentProxy)
	}
	os.Setenv("NO_PROXY", "")
	os.Setenv("no_proxy", "")
	goleak.VerifyTestMain(m)
}

const key = "sk-the-secret-key"

// open returns a client that is closed when the test ends, and before the servers that the test started.
func open(t *testing.T, config upstream.Config) *upstream.Client {
	t.Helper()
	config.ID, config.APIKey = "provider-7", key
	client, err := upstream.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// provider is the simplest there can be. The data of an event is a word, and what belongs to it: "text Hello",
// "finish length", "usage", "done", "fail". Others are passed over.
type provider struct {
	client  *upstream.Client
	url     string
	refused func(status int, body []byte) *chat.Error
}

func (p provider) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return p.client.Stream(ctx, upstream.Call{URL: p.url, Body: request.Model, Decode: decode, Refused: p.refused})
}

func decode(event sse.Event) (chunk chat.Chunk, done bool, err error) {
	word, rest, _ := strings.Cut(string(event.Data), " ")
	switch word {
	case "text":
		chunk.Text = rest
	case "finish":
		chunk.FinishReason = chat.FinishReason(rest)
	case "usage":
		chunk.Usage = &chat.Usage{InputTokens: 1, OutputTokens: 2}
	case "done":
		done = true
	case "fail":
		err = upstream.Garbled
	}
	return chunk, done, err
}
