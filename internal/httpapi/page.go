package httpapi

import (
	"encoding/base64"
	"encoding/json"

	"github.com/parley-chat/parley/chat"
)

// PageParams are how a list is asked for. It is exported, like others here, because huma looks only into embedded types
// that are.
type PageParams struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many items a page has."`
	Cursor string `query:"cursor" maxLength:"1024" doc:"The next_cursor of the page before."`
}

// page is a part of a list.
type page[T any] struct {
	Items      []T    `json:"items" nullable:"false"`
	NextCursor string `json:"next_cursor,omitempty" doc:"Where the next page begins; absent: this is the last."`
}

// paginate makes a page of what was read for it: one more than it has, where there is more. place gives the place of an
// item, at which the page after it goes on.
func paginate[R, T any](rows []R, limit int, place func(*R) any, shown func(*R) T) page[T] {
	p := page[T]{Items: []T{}}
	for i := range rows {
		if i == limit {
			p.NextCursor = encodeCursor(place(&rows[i-1]))
			break
		}
		p.Items = append(p.Items, shown(&rows[i]))
	}
	return p
}

// A cursor is a place in a list, as JSON in base64. It is no secret and grants nothing: what it leads to is checked like
// any request. To clients it is opaque.
func encodeCursor(place any) string {
	b, err := json.Marshal(place)
	if err != nil {
		panic(err) // a place is made of numbers, texts and times
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// readCursor reads the place of a cursor; without one it is the zero place.
func readCursor[P any](cursor string) (place P, err error) {
	if cursor == "" {
		return place, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		err = json.Unmarshal(b, &place)
	}
	if err != nil {
		return place, badParameter("cursor", "it is not a cursor of this list")
	}
	return place, nil
}

// badParameter is the error for a parameter that is not as the API says.
func badParameter(name, message string) *chat.Error {
	err := chat.NewError(chat.CodeInvalidRequest, message)
	err.Field = name
	return err
}
