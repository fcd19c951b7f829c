package llmtest

import (
	"encoding/json"
	"fmt"
)

// openAI is OpenAI's Chat Completions, as of the API reference's "Streaming events", with the extensions of those who
// speak it too: reasoning_content (llama.cpp, DeepSeek), comments and errors in mid-stream (OpenRouter).
type openAI struct{ e *exchange }

func newOpenAI(e *exchange) dialect { return openAI{e} }

func (o openAI) read(body []byte) error { return json.Unmarshal(body, &o.e.request) }

func (o openAI) admit() bool { return true }

func (o openAI) refuse(status int, code, message string) {
	o.e.writeError(status, `{"error":{"message":`+o.e.quote(message)+`,"code":`+o.e.quote(code)+`}}`)
}

func (o openAI) start() {
	o.e.open()
	o.choice(`"role":"assistant","content":""`, "")
}

func (o openAI) text(text string) { o.choice(`"content":`+o.e.quote(text), "") }

func (o openAI) reasoning(text string) { o.choice(`"reasoning_content":`+o.e.quote(text), "") }

func (o openAI) toolCall() {
	o.choice(`"tool_calls":[{"index":0,"id":"call_1","type":"function",`+
		`"function":{"name":"lookup","arguments":""}}]`, "")
	o.choice(`"tool_calls":[{"index":0,"function":{"arguments":"{\"key\":1}"}}]`, "")
}

func (o openAI) ping() { o.e.comment() }

func (o openAI) finish(why reason) {
	finishReason := "stop"
	switch why {
	case length, window, pause:
		finishReason = "length"
	case filter, refusal:
		finishReason = "content_filter"
	case tools:
		finishReason = "tool_calls"
	}
	o.choice("", finishReason)
}

func (o openAI) usage() {
	if o.e.unmetered || !o.e.request.StreamOptions.IncludeUsage {
		return
	}
	input, output := o.e.tokens()
	o.chunk(fmt.Sprintf(`"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`,
		input, output, input+output))
}

func (o openAI) end() { o.e.event("", "[DONE]") }

func (o openAI) fault(overloaded bool) {
	if overloaded {
		o.e.event("", `{"error":{"code":503,"message":`+o.e.quote(Detail)+`}}`)
		return
	}
	o.e.event("", `{"error":{"message":`+o.e.quote(Detail)+`,"type":"server_error","code":"overloaded"}}`)
}

func (o openAI) garbage() { o.e.event("", `{"choices":[{"delta":{"content":`) }

// choice sends the fields of a delta.
func (o openAI) choice(delta, finishReason string) {
	why := "null"
	if finishReason != "" {
		why = o.e.quote(finishReason)
	}
	o.chunk(`"choices":[{"index":0,"delta":{` + delta + `},"finish_reason":` + why + `}]`)
}

func (o openAI) chunk(rest string) {
	o.e.event("", `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":`+created+`,"model":`+
		o.e.quote(o.e.request.Model)+`,`+rest+`}`)
}
