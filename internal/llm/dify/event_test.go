package dify

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// begun is an answer of which the first event was read.
func begun(agent bool) *answer {
	return &answer{client: new(upstream.Client), task: "task", next: state{ConversationID: "c"}, agent: agent}
}

// deltas returns those events of the transcripts that only carry text or reasoning on, by the file's name.
func deltas(tb testing.TB) map[string][][]byte {
	tb.Helper()
	found := make(map[string][][]byte)
	for _, name := range llmtest.Transcripts(tb) {
		a := begun(isAgent(name))
		for _, event := range llmtest.Events(tb, name) {
			chunk, _, err := a.decodeAny(event)
			if err == nil && (chunk.Text != "" || chunk.Reasoning != "") {
				found[name] = append(found[name], event)
			}
		}
	}
	return found
}

func isAgent(transcript string) bool { return transcript == "agent" || transcript == "new-agent" }

func TestDeltasAreDecodedFast(t *testing.T) {
	for name, events := range deltas(t) {
		for _, event := range events {
			want, _, err := begun(isAgent(name)).decodeAny(event)
			got, ok := begun(isAgent(name)).decodeDelta(event)
			if err != nil || !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, %v; want %+v, true, %v: %s", name, got, ok, want, err, event)
			}
		}
	}
}

// The first event has more to tell than its text.
func TestTheFirstEventIsLeftToEncodingJSON(t *testing.T) {
	event := []byte(`{"event":"message","task_id":"t","conversation_id":"c","answer":"a"}`)
	for _, a := range []*answer{{}, {task: "t"}, {next: state{ConversationID: "c"}}} {
		if chunk, ok := a.decodeDelta(event); ok {
			t.Errorf("%+v gives %+v", a, chunk)
		}
	}
}

// What is no plain delta, or one of which encoding/json makes something that takes a second look.
var doubtful = []string{
	`null`, `{}`, `[]`, ``,
	`{"event":"agent_message","answer":"a"}`, // the first of an agent
	`{"event":"agent_thought","thought":"a"}`,
	`{"event":"message_replace","answer":"a"}`,
	`{"event":"message_end","metadata":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}`,
	`{"event":"message_end","metadata":{"usage":{"total_tokens":1}}}`,
	`{"event":"message_end","metadata":{"usage":{"prompt_tokens":"1"}}}`,
	`{"event":"message_end","metadata":[]}`,
	`{"event":"message_end","metadata":null}`,
	`{"event":"workflow_finished","data":{"status":"failed","error":"m"}}`,
	`{"event":"workflow_paused","data":{}}`,
	`{"event":"error","status":500,"code":"internal_server_error","message":"m"}`,
	`{"event":"error","status":"500"}`,
	`{"event":5,"answer":"a"}`,
	`{"event":"message","answer":5}`,
	`{"event":"message","answer":["a"]}`,
	`{"event":"message","answer":"a","Answer":"b"}`,
	`{"event":"message","answer":"a","answer":"b"}`,
	`{"event":"mess\u0061ge","answer":"a"}`,
	`{"event":"message","answer":"a","data":"b"}`,
	`{"event":"message","answer":"a","task_id":5}`,
	`{"event":"message","answer":"a","conversation_id":{}}`,
	`{"event":"reasoning_chunk","data":{"reasoning":5}}`,
	`{"event":"reasoning_chunk","data":[]}`,
	`{"event":"message","answer":"a"`,
	"{\"event\":\"message\",\"answer\":\"\xff\"}",
}

func TestTheDoubtfulIsLeftToEncodingJSON(t *testing.T) {
	for _, event := range doubtful {
		if chunk, ok := begun(false).decodeDelta([]byte(event)); ok {
			t.Errorf("%s gives %+v", event, chunk)
		}
	}
	repeated := `{"event":"message","answer":"a"}`
	if chunk, ok := begun(true).decodeDelta([]byte(repeated)); ok {
		t.Errorf("%s of an agent gives %+v", repeated, chunk)
	}
}

// What decodes fast, though the transcripts have nothing like it.
var unusual = []string{
	`{"event":"message"}`,
	`{"event":"message","answer":null,"task_id":null,"conversation_id":""}`,
	`{"event":"message","answer":"\u4f60\u597d\ud83d\ude00\n","metadata":5,"data":null}`,
	`{"event":"message","answer":"a","data":{"reasoning":5}}`,
	`{"event":"reasoning_chunk","data":{"reasoning":"a"},"answer":5}`,
	`{"event":"reasoning_chunk","data":null}`,
	" { \"answer\" : \"a\" , \"event\" : \"message\" } ",
}

func TestTheUnusualIsDecodedFast(t *testing.T) {
	for _, event := range unusual {
		want, _, err := begun(false).decodeAny([]byte(event))
		got, ok := begun(false).decodeDelta([]byte(event))
		if err != nil || !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v, true, %v: %s", got, ok, want, err, event)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range llmtest.Transcripts(f) {
		for _, event := range llmtest.Events(f, name) {
			f.Add(event, isAgent(name))
		}
	}
	for _, event := range slices.Concat(doubtful, unusual) {
		f.Add([]byte(event), false)
	}
	f.Fuzz(func(t *testing.T, event []byte, agent bool) {
		got, ok := begun(agent).decodeDelta(event)
		if !ok {
			return
		}
		want, done, err := begun(agent).decodeAny(event)
		if err != nil || done || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, encoding/json gives %+v, %v, %v", got, want, done, err)
		}
	})
}

func TestAllocationsOfADelta(t *testing.T) {
	for name, events := range deltas(t) {
		a := begun(isAgent(name))
		t.Run(name, func(t *testing.T) {
			llmtest.TestAllocations(t, events, func(data []byte) (chat.Chunk, error) {
				chunk, _, err := a.decode(data)
				return chunk, err
			})
		})
	}
}

func BenchmarkStream(b *testing.B) {
	found := deltas(b)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		a := begun(isAgent(name))
		decoders := map[string]func([]byte) (chat.Chunk, bool, error){"fast": a.decode, "encoding-json": a.decodeAny}
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
