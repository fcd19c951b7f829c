package llmtest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

func (h *Handler) serveModeration(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request struct {
		Text string `json:"text"`
	}
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.change(func() { h.moderations = append(h.moderations, body) })
	switch {
	case strings.Contains(request.Text, "moderator-hang"):
		select {
		case <-r.Context().Done():
		case <-h.closed.Done():
		}
	case strings.Contains(request.Text, "moderator-500"):
		http.Error(w, Detail, http.StatusInternalServerError)
	case strings.Contains(request.Text, "forbidden"):
		writeJSON(w, map[string]any{"allowed": false, "reason": "scripted"})
	default:
		writeJSON(w, map[string]any{"allowed": true})
	}
}
