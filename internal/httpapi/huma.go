package httpapi

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/telemetry"
	"github.com/parley-chat/parley/internal/wire"
)

// maxBodyBytes is how large a request's body may be.
const maxBodyBytes = 128 << 10

// newHuma makes the API on a mux, with the OpenAPI document at /openapi.json and nothing else of huma's own: its pages
// load code from elsewhere.
func newHuma(mux *http.ServeMux, prefix, version string) huma.API {
	cfg := huma.DefaultConfig("Parley", version)
	cfg.Info.Description = "What goes on beside the WebSocket. Errors are problem documents (RFC 9457) with a `code`."
	cfg.Servers = []*huma.Server{{URL: prefix + "/"}}
	cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "", "", nil
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
	}
	cfg.Security = []map[string][]string{{"token": {}}}
	cfg.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[wire.Time](), reflect.TypeFor[time.Time]())
	cfg.Transformers = []huma.Transformer{asProblem}
	api := humago.New(mux, cfg)
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(problemContext{ctx}) })
	return api
}

// problem is an error as huma answers with it.
type problem struct {
	wire.Problem
	retryAfter time.Duration
}

func newProblem(e *chat.Error) *problem {
	status := wire.HTTPStatus(e.Code)
	return &problem{wire.NewProblem(status, e), e.RetryAfter}
}

// Error implements [huma.StatusError].
func (p *problem) Error() string { return p.Detail }

// GetStatus implements [huma.StatusError].
func (p *problem) GetStatus() int { return p.Status }

// ContentType implements [huma.ContentTypeFilter].
func (p *problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders implements [huma.HeadersError].
func (p *problem) GetHeaders() http.Header {
	header := http.Header{}
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		header.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(p.retryAfter.Seconds())))))
	}
	return header
}

// asProblem turns what huma found wrong with a request into a problem as all others are. It shows nothing of what was
// sent.
func asProblem(_ huma.Context, _ string, body any) (any, error) {
	model, ok := body.(*huma.ErrorModel)
	if !ok {
		return body, nil
	}
	e := chat.NewError(chat.CodeInvalidRequest, model.Detail)
	switch model.Status {
	case http.StatusInternalServerError:
		e = chat.AsError(errors.New(model.Detail))
	case http.StatusRequestEntityTooLarge:
		e.Code = chat.CodeMessageTooLarge
	}
	if len(model.Errors) > 0 {
		switch detail := model.Errors[0]; detail.Location {
		case "body":
			e = chat.NewError(chat.CodeInvalidJSON, "the body is not JSON")
		default:
			_, e.Field, _ = strings.Cut(detail.Location, ".") // after "query" or "path"
			e.Message = detail.Message
		}
	}
	return wire.NewProblem(statusOf(model.Status), e), nil
}

// statusOf gives the status that the protocol has for one of huma's.
func statusOf(status int) int {
	if status == http.StatusUnprocessableEntity {
		return http.StatusBadRequest
	}
	return status
}

// humaContext is huma's name for a request, which has a method of that name.
type humaContext = huma.Context

// problemContext is a request in which a status is the protocol's.
type problemContext struct{ humaContext }

// SetStatus implements [huma.Context].
func (c problemContext) SetStatus(status int) { c.humaContext.SetStatus(statusOf(status)) }

// Header implements [huma.Context]. Whatever a body is said to be, it is read as JSON.
func (c problemContext) Header(name string) string {
	if name == "Content-Type" {
		return "application/json"
	}
	return c.humaContext.Header(name)
}

// Unwrap gives the context that is wrapped.
func (c problemContext) Unwrap() huma.Context { return c.humaContext }

// operation is one thing that can be asked for.
type operation struct {
	method, path string
	id, summary  string
	status       int // of success; 0: 200
	tag          string
}

// The groups of operations in the document.
const (
	tagUser  = "user"
	tagAdmin = "admin"
)

// register has the API answer an operation. What handle returns as an error is logged, and answered as a problem.
func register[I, O any](h *Handler, op operation, handle func(ctx context.Context, in *I) (*O, error)) {
	huma.Register(h.api, huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.summary, Tags: []string{op.tag},
		DefaultStatus: op.status, MaxBodyBytes: maxBodyBytes, SkipValidateBody: true,
	}, func(ctx context.Context, in *I) (*O, error) {
		h.nameSpan(ctx, op)
		out, err := handle(ctx, in)
		if err != nil {
			return nil, h.problemOf(ctx, op, err)
		}
		return out, nil
	})
}

// problemOf logs an error, and gives what it is answered with.
func (h *Handler) problemOf(ctx context.Context, op operation, err error) error {
	if p, ok := errors.AsType[*problem](err); ok {
		return p // it is nothing but an answer
	}
	h.logRefusal(ctx, op.method, op.path, callerOf(ctx), err)
	return newProblem(telemetry.Mark(ctx, chat.AsError(err)))
}

// answer is an answer with a body.
type answer[T any] struct{ Body T }

func answered[T any](body T, err error) (*answer[T], error) {
	if err != nil {
		return nil, err
	}
	return &answer[T]{body}, nil
}

// nothing is an answer without a body.
type nothing struct{}

// body is a request's body that is described by T, and read by the rules of the wire's frames.
type body[T any] struct{ raw []byte }

// UnmarshalJSON implements [json.Unmarshaler].
func (b *body[T]) UnmarshalJSON(raw []byte) error {
	b.raw = bytes.Clone(raw)
	return nil
}

// Schema implements [huma.SchemaProvider].
func (*body[T]) Schema(r huma.Registry) *huma.Schema { return r.Schema(reflect.TypeFor[T](), true, "") }

// bytes gives the body as it was sent; an optional one that was not sent is empty.
func (b *body[T]) bytes() []byte {
	if b == nil {
		return nil
	}
	return b.raw
}
