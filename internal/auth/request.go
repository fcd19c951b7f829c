package auth

import (
	"errors"
	"net/http"
	"strings"

	"github.com/parley-chat/parley/chat"
)

// bearerProtocol begins the offered WebSocket subprotocol in which a browser, which cannot set headers, puts its token.
const bearerProtocol = "parley.bearer."

// FromRequest finds the token of a request: in the Authorization header (RFC 6750 §2.1), else among the offered
// WebSocket subprotocols. Any error is a [chat.Error] of [chat.CodeUnauthenticated].
func FromRequest(r *http.Request) (string, error) {
	token := fromHeader(r)
	if token == "" {
		token = fromProtocols(r)
	}
	switch {
	case token == "":
		return "", unauthenticated("a token is missing", errors.New("no Bearer token and no "+bearerProtocol+" subprotocol"))
	case len(token) > maxTokenBytes:
		return "", malformed(errors.New("longer than 8 KiB"))
	}
	return token, nil
}

func fromHeader(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1: a scheme's case does not matter
		return ""
	}
	return strings.TrimSpace(token)
}

func fromProtocols(r *http.Request) string {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offered := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offered), bearerProtocol); ok && token != "" {
				return token
			}
		}
	}
	return ""
}

// RefuseQueryToken returns a [chat.Error] of [chat.CodeInvalidRequest] for a request with a token in its query, from
// where it would get into access logs.
func RefuseQueryToken(r *http.Request) error {
	query := r.URL.Query()
	if query.Has("token") || query.Has("access_token") {
		return chat.NewError(chat.CodeInvalidRequest,
			"a token must not stand in the address: send it in the Authorization header or as a subprotocol")
	}
	return nil
}
