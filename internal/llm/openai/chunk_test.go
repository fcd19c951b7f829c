package openai

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// bare is a provider that decodes and asks nobody.
func bare() *Provider { return &Provider{client: new(upstream.Client)} }

// transcripts returns the events of each file in testdata, without the end mark, by the file's name.
func transcripts(tb testing.TB) map[string][][]byte {
	tb.Helper()
	found := make(map[string][][]byte)
	for _, name := range llmtest.Transcripts(tb) {
		found[name] = slices.DeleteFunc(llmtest.Events(tb, name), func(event []byte) bool {
			return string(event) == "[DONE]"
		})
	}
	return found
}

// deltas returns those events of the transcripts that only carry text or reasoning on.
func deltas(tb testing.TB) map[string][][]byte {
	tb.Helper()
	found := transcripts(tb)
	for name, events := range found {
		found[name] = slices.DeleteFunc(events, func(event []byte) bool {
			chunk, err := bare().decodeAny(event)
			return err != nil || chunk.Text == "" && chunk.Reasoning == "" || chunk.FinishReason != ""
		})
		if len(found[name]) == 0 {
			tb.Fatalf("%s has no deltas", name)
		}
	}
	return found
}

func TestDeltasAreDecodedFast(t *testing.T) {
	for name, events := range deltas(t) {
		for _, event := range events {
			want, err := bare().decodeAny(event)
			if got, ok := decodeDelta(event); err != nil || !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, %v; want %+v, true, %v: %s", name, got, ok, want, err, event)
			}
		}
	}
}

// What is no plain delta, or one of which encoding/json makes something that takes a second look.
var doubtful = []string{
	`{"error":{"message":"m","code":429}}`,
	`{"choices":[{"delta":{"content":"a"}}],"error":"m"}`,
	`{"choices":[{"delta":{"content":"a"}}],"error":{}}`,
	`{"object":"error","message":"m","code":400}`,
	`{"object":"\u0065rror","code":400}`,
	`{"object":5}`,
	`{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}`,
	`{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}`,
	`{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}`,
	`{"choices":[{"delta":{"function_call":{"name":"f","arguments":""}}}]}`,
	`{"choices":[{"delta":{"content":"a"},"finish_reason":5}]}`,
	`{"choices":[{"delta":{"content":"a"}},{"delta":{"content":5}}]}`,
	`{"choices":[{"delta":{"content":"a"}},null]}`,
	`{"choices":[{"delta":{"content":5}}]}`,
	`{"choices":[{"delta":{"content":["a"]}}]}`,
	`{"choices":[{"delta":{"content":"a","reasoning":5}}]}`,
	`{"choices":[{"delta":{"content":"a","reasoning_content":{}}}]}`,
	`{"choices":[{"delta":{"content":"a","content":null}}]}`,
	`{"choices":[{"delta":{"content":"a","Content":"b"}}]}`,
	`{"choices":[{"delta":{"content":"a"},"delta":{"reasoning":"b"}}]}`,
	`{"choices":[{"delta":{"content":"a"}}],"choices":[]}`,
	`{"choices":[{"delta":{"content":"a"}}],"USAGE":{"prompt_tokens":1}}`,
	`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1.0}}`,
	`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":-1}}`,
	`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":"1"}}`,
	`{"choices":[{"delta":{"content":"a"}}],"usage":5}`,
	`{"choices":[{"delta":{"content":"a"}}]}}`,
	`{"choices":[{"delta":{"content":"a"}}]`,
	"{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}",
	"{\"choice\u017f\":[{\"delta\":{\"content\":\"a\"}}]}",
}

func TestTheDoubtfulIsLeftToEncodingJSON(t *testing.T) {
	for _, event := range doubtful {
		if chunk, ok := decodeDelta([]byte(event)); ok {
			t.Errorf("%s gives %+v", event, chunk)
		}
	}
}

// What decodes fast, though the transcripts have nothing like it.
var unusual = []string{
	`null`,
	`{}`,
	`{"choices":[]}`,
	`{"choices":null,"usage":null,"error":null,"object":null}`,
	`{"choices":[null]}`,
	`{"choices":[{"delta":null,"finish_reason":""}]}`,
	`{"choices":[{"delta":{"content":null,"reasoning_content":"","reasoning":"a"}}]}`,
	`{"choices":[{"delta":{"content":"\u00e9\ud83d\ude00\ud83d\n","reasoning_content":"a","reasoning":"b"}}]}`,
	`{"choices":[{"delta":{"content":"a","tool_calls":[],"function_call":null}}],"code":{}}`,
	`{"choices":[{"delta":{"content":null,"refusal":"I cannot."}}]}`,
	`{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":0}}}`,
	`{"choices":[],"usage":{"prompt_tokens":null}}`,
}

func TestTheUnusualIsDecodedFast(t *testing.T) {
	for _, event := range unusual {
		want, err := bare().decodeAny([]byte(event))
		if got, ok := decodeDelta([]byte(event)); err != nil || !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v, true, %v: %s", got, ok, want, err, event)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, events := range transcripts(f) {
		for _, event := range events {
			f.Add(event)
		}
	}
	for _, event := range slices.Concat(doubtful, unusual) {
		f.Add([]byte(event))
	}
	f.Fuzz(func(t *testing.T, event []byte) {
		got, ok := decodeDelta(event)
		if !ok {
			return
		}
		if want, err := bare().decodeAny(event); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, encoding/json gives %+v, %v", got, want, err)
		}
	})
}

func TestAllocationsOfADelta(t *testing.T) {
	for name, events := range deltas(t) {
		t.Run(name, func(t *testing.T) { llmtest.TestAllocations(t, events, bare().decode) })
	}
}

func BenchmarkStream(b *testing.B) {
	found := deltas(b)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		b.Run(name+"/fast", func(b *testing.B) { llmtest.BenchmarkDecoder(b, found[name], bare().decode) })
		b.Run(name+"/encoding-json", func(b *testing.B) { llmtest.BenchmarkDecoder(b, found[name], bare().decodeAny) })
	}
}
