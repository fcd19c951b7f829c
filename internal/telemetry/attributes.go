package telemetry

import "go.opentelemetry.io/otel/attribute"

// The attributes of OpenTelemetry's conventions (https://opentelemetry.io/docs/specs/semconv/). Those of gen_ai are still
// in development there, so they stand here by name: a new version of a library must not rename what dashboards look for.
const (
	Operation      = attribute.Key("gen_ai.operation.name")
	Conversation   = attribute.Key("gen_ai.conversation.id")
	GenAIProvider  = attribute.Key("gen_ai.provider.name") // the API's kind: openai, anthropic, …
	RequestModel   = attribute.Key("gen_ai.request.model")
	ResponseModel  = attribute.Key("gen_ai.response.model")
	FinishReasons  = attribute.Key("gen_ai.response.finish_reasons")
	InputTokens    = attribute.Key("gen_ai.usage.input_tokens")
	OutputTokens   = attribute.Key("gen_ai.usage.output_tokens")
	ErrorType      = attribute.Key("error.type")
	EndUser        = attribute.Key("enduser.id")
	ServerAddress  = attribute.Key("server.address")
	ServerPort     = attribute.Key("server.port")
	ResponseStatus = attribute.Key("http.response.status_code")
	RequestMethod  = attribute.Key("http.request.method")
	Route          = attribute.Key("http.route")
)

// OperationChat is the [Operation] of a response.
const OperationChat = "chat"

// Parley's own attributes.
const (
	SessionID   = attribute.Key("parley.session_id")
	MessageID   = attribute.Key("parley.message_id")
	Status      = attribute.Key("parley.status")    // of a response
	Provider    = attribute.Key("parley.provider")  // as configured
	Attempt     = attribute.Key("parley.attempt")   // at this target, from 1
	Hedged      = attribute.Key("parley.hedged")    // begun while another one was waited for
	Estimated   = attribute.Key("parley.estimated") // the usage is Parley's own count
	Purpose     = attribute.Key("parley.purpose")   // of a request that is no response
	OperationID = attribute.Key("parley.operation_id")
	Command     = attribute.Key("parley.command")
	Connection  = attribute.Key("parley.connection_id")
	Outcome     = attribute.Key("parley.outcome") // of an attempt, as the metrics call it
)

// EventFirstToken is when the reader sees the first of a response.
const EventFirstToken = "parley.first_token"
