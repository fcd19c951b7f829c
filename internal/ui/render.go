package ui

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/wire"
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
func newRenderHandler(admit func(http.ResponseWriter, *http.Request) error) http.Handler {
	markdown := newMarkdown()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := admit(w, r); err != nil {
			wire.Refuse(w, r, chat.AsError(err))
			return
		}
		request, err := decodeRenderRequest(http.MaxBytesReader(w, r.Body, maxRenderBytes))
		if err != nil {
			wire.WriteProblem(w, chat.AsError(err))
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
