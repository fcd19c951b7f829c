package auth_test

import (
	"crypto/rsa"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/auth"
)

// shortRSAKey only has the length of a key: it is refused before it is used.
var shortRSAKey = &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}

func TestTheTokenOfARequest(t *testing.T) {
	for name, c := range map[string]struct {
		header http.Header
		want   string
	}{
		"header":            {http.Header{"Authorization": {"Bearer a.b.c"}}, "a.b.c"},
		"any case":          {http.Header{"Authorization": {"bEARER  a.b.c "}}, "a.b.c"},
		"subprotocol":       {http.Header{"Sec-Websocket-Protocol": {"parley.v1, parley.bearer.a.b.c"}}, "a.b.c"},
		"second line":       {http.Header{"Sec-Websocket-Protocol": {"parley.v1", "parley.bearer.a.b.c"}}, "a.b.c"},
		"header first":      {http.Header{"Authorization": {"Bearer h"}, "Sec-Websocket-Protocol": {"parley.bearer.p"}}, "h"},
		"another scheme":    {http.Header{"Authorization": {"Basic h"}, "Sec-Websocket-Protocol": {"parley.bearer.p"}}, "p"},
		"empty header":      {http.Header{"Authorization": {"Bearer "}, "Sec-Websocket-Protocol": {"parley.bearer.p"}}, "p"},
		"nothing":           {http.Header{}, ""},
		"empty protocol":    {http.Header{"Sec-Websocket-Protocol": {"parley.bearer."}}, ""},
		"only a scheme":     {http.Header{"Authorization": {"Bearer"}}, ""},
		"too long":          {http.Header{"Authorization": {"Bearer " + strings.Repeat("a", 8<<10+1)}}, ""},
		"as long as it may": {http.Header{"Authorization": {"Bearer " + strings.Repeat("a", 8<<10)}}, strings.Repeat("a", 8<<10)},
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.Header = c.header
		got, err := auth.FromRequest(r)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %.20q, %v", name, got, err)
		}
		if err != nil && !errors.Is(err, chat.NewError(chat.CodeUnauthenticated, "")) {
			t.Errorf("%s: %v is not unauthenticated", name, err)
		}
	}
}

func TestATokenInTheQueryIsRefused(t *testing.T) {
	for query, want := range map[string]bool{
		"": true, "?x=token": true, "?tokens=1": true,
		"?token=abcdef": false, "?x=1&access_token=abcdef": false, "?token": false, "?%74oken=abcdef": false,
	} {
		err := auth.RefuseQueryToken(httptest.NewRequest("GET", "/ws"+query, nil))
		if (err == nil) != want {
			t.Errorf("%s: %v", query, err)
		}
		if err != nil && (!errors.Is(err, chat.NewError(chat.CodeInvalidRequest, "")) || strings.Contains(err.Error(), "abcdef")) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
