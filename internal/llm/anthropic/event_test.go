package anthropic

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// fresh is an answer that has not begun.
func fresh() *answer { return &answer{client: new(upstream.Client)} }

func decodeAny(data []byte) (chat.Chunk, error) {
	chunk, _, err := fresh().decodeAny(data)
	return chunk, err
}

// deltas returns those events of the transcripts that only carry text or thinking on, by the file's name.
func deltas(tb testing.TB) map[string][][]byte {
	tb.Helper()
	found := make(map[string][][]byte)
	for _, name := range llmtest.Transcripts(tb) {
		for _, event := range llmtest.Events(tb, name) {
			chunk, err := decodeAny(event)
			if err == nil && (chunk.Text != "" || chunk.Reasoning != "") {
				found[name] = append(found[name], event)
			}
		}
	}
	return found
}

func TestDeltasAreDecodedFast(t *testing.T) {
	for name, events := range deltas(t) {
		for _, event := range events {
			want, err := decodeAny(event)
			if got, ok := decodeDelta(event); err != nil || !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, %v; want %+v, true, %v: %s", name, got, ok, want, err, event)
			}
		}
	}
}

// What is no plain delta, or one of which encoding/json makes something that takes a second look.
var doubtful = []string{
	`null`, `{}`, `[]`, ``,
	`{"type":"ping"}`,
	`{"type":"message_stop"}`,
	`{"type":"error","error":{"type":"overloaded_error","message":"m"}}`,
	`{"type":"error","error":"m"}`,
	`{"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":1}}}`,
	`{"type":"message_start","message":{"usage":{"input_tokens":"1"}}}`,
	`{"type":"message_start","message":{"usage":null}}`,
	`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}`,
	`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":[]}`,
	`{"type":"message_delta","delta":{"type":"text_delta","text":"a","stop_reason":null}}`,
	`{"type":"content_block_start","content_block":{"type":"tool_use"}}`,
	`{"type":"content_block_start","content_block":{"type":"text","text":"a"}}`,
	`{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"a"}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":5}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a","thinking":5}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a","stop_reason":5}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a","Text":"b"}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"},"delta":{"text":"b"}}`,
	`{"type":"content_block_delta","delta":{"type":"text\u005fdelta","text":"a"}}`,
	`{"type":"content_block_delta","delta":"a"}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"},"error":{"type":"b"}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"},"message":5}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"},"content_block":5}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}`,
	"{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"\xff\"}}",
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
	`{"delta":{"text":"\u00e9\ud83d\ude00\n","type":"text_delta"},"index":0,"type":"content_block_delta"}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":null}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta"}}`,
	`{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"a","text":"b"}}`,
	`{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"},"usage":5,"error":null,"x":[{}]}`,
	" { \"type\" : \"content_block_delta\" , \"delta\" : { \"type\" : \"text_delta\" , \"text\" : \"a\" } } ",
}

func TestTheUnusualIsDecodedFast(t *testing.T) {
	for _, event := range unusual {
		want, err := decodeAny([]byte(event))
		if got, ok := decodeDelta([]byte(event)); err != nil || !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v, true, %v: %s", got, ok, want, err, event)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range llmtest.Transcripts(f) {
		for _, event := range llmtest.Events(f, name) {
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
		if want, err := decodeAny(event); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, encoding/json gives %+v, %v", got, want, err)
		}
	})
}

func TestAllocationsOfADelta(t *testing.T) {
	a := fresh()
	for name, events := range deltas(t) {
		t.Run(name, func(t *testing.T) {
			llmtest.TestAllocations(t, events, func(data []byte) (chat.Chunk, error) {
				chunk, _, err := a.decode(data)
				return chunk, err
			})
		})
	}
}

func BenchmarkStream(b *testing.B) {
	a := fresh()
	decoders := map[string]func([]byte) (chat.Chunk, bool, error){"fast": a.decode, "encoding-json": a.decodeAny}
	found := deltas(b)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		for _, decoder := range slices.Sorted(maps.Keys(decoders)) {
			b.Run(name+"/"+decoder, func(b *testing.B) {
				llmtest.BenchmarkDecoder(b, found[name], func(data []byte) (chat.Chunk, error) {
					chunk, _, err := decoders[decoder](data)
					return chunk, err
				})
			})
		}
	}
}
