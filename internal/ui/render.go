package ui

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
)

// The limits of one rendering request.
const (
	maxRenderBytes = 1 << 20
	maxRenderTexts = 200

	// maxRenderCost bounds the work of one request, as markdownCost counts it: some tenths of a second.
	maxRenderCost = 100_000_000
)

type renderRequest struct {
	Texts []string `json:"texts"`
}

type renderResponse struct {
	HTML []string `json:"html"`
}

// newRenderHandler answers {"texts": […]} with {"html": […]}, in the same order. It also tells a browser, which cannot
// see why an upgrade was refused, whether its token is still good.
func newRenderHandler(verify func(token string) error) http.Handler {
	markdown := newMarkdown()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := verify(bearerToken(r)); err != nil {
			writeProblem(w, tokenError(err))
			return
		}
		request, err := decodeRenderRequest(http.MaxBytesReader(w, r.Body, maxRenderBytes))
		if err != nil {
			writeProblem(w, chat.AsError(err))
			return
		}
		response := renderResponse{HTML: renderAll(markdown, request.Texts)}
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(response) // It fails only where the browser has gone.
	})
}

// renderAll renders what the request may cost, and gives the rest as plain text.
func renderAll(m *markdown, texts []string) []string {
	rendered := make([]string, len(texts))
	budget := maxRenderCost
	for i, text := range texts {
		cost := markdownCost(text)
		if cost > budget {
			rendered[i] = plainHTML(text)
			continue
		}
		budget -= cost
		rendered[i] = m.render(text)
	}
	return rendered
}

// bearerToken is empty where the header is missing or of another scheme (RFC 9110 §11.1: schemes ignore case).
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func tokenError(err error) *chat.Error {
	if shown, ok := errors.AsType[*chat.Error](err); ok {
		return shown
	}
	return chat.NewError(chat.CodeUnauthenticated, "the token is missing, wrong or expired").WithCause(err)
}

func decodeRenderRequest(body io.Reader) (renderRequest, error) {
	var request renderRequest
	data, err := io.ReadAll(body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return request, chat.NewError(chat.CodeMessageTooLarge, "the request is larger than 1 MiB")
		}
		return request, chat.NewError(chat.CodeInvalidRequest, "the request broke off").WithCause(err)
	}
	if err := json.Unmarshal(data, &request); err != nil {
		return request, chat.NewError(chat.CodeInvalidJSON, `the request is not {"texts": [string, …]}`).WithCause(err)
	}
	if len(request.Texts) > maxRenderTexts {
		return request, chat.NewError(chat.CodeInvalidRequest, "the request has more than 200 texts")
	}
	return request, nil
}

// problem is an RFC 9457 problem document with the protocol's error code.
type problem struct {
	Title  string    `json:"title"`
	Status int       `json:"status"`
	Detail string    `json:"detail"`
	Code   chat.Code `json:"code"`
}

func writeProblem(w http.ResponseWriter, e *chat.Error) {
	status := problemStatus(e.Code)
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	if e.RetryAfter > 0 {
		seconds := (e.RetryAfter + time.Second - 1) / time.Second
		header.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem{ // It fails only where the browser has gone.
		Title: http.StatusText(status), Status: status, Detail: e.Message, Code: e.Code,
	})
}

func problemStatus(code chat.Code) int {
	switch code {
	case chat.CodeInvalidJSON, chat.CodeInvalidRequest:
		return http.StatusBadRequest
	case chat.CodeUnauthenticated:
		return http.StatusUnauthorized
	case chat.CodeForbidden:
		return http.StatusForbidden
	case chat.CodeMessageTooLarge:
		return http.StatusRequestEntityTooLarge
	case chat.CodeRateLimited:
		return http.StatusTooManyRequests
	case chat.CodeServerDraining:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
