package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
)

// FindSessions implements [chat.Store].
func (s *Store) FindSessions(
	ctx context.Context, filter chat.SessionFilter, order chat.SessionOrder, after chat.SessionPlace, limit int,
) ([]chat.Session, error) {
	query, args := findSessionsQuery(filter, order, after, limit)
	rows, err := s.readers.QueryContext(ctx, query, args...)
	sessions, err := scanAll(rows, err, scanSession)
	return sessions, failure(err, "find sessions")
}

func findSessionsQuery(
	filter chat.SessionFilter, order chat.SessionOrder, after chat.SessionPlace, limit int,
) (query string, args []any) {
	var c conditions
	c.addText("user_id = ?", filter.UserID)
	c.addText("status = ?", string(filter.Status))
	c.addText("model = ?", filter.Model)
	if filter.Assisted != nil {
		c.add("(assisted_by IS NOT NULL) = ?", *filter.Assisted)
	}
	if filter.HelpRequested != nil {
		c.add("help_requested = ?", *filter.HelpRequested)
	}
	c.addTime("last_active_at >= ?", filter.From)
	c.addTime("created_at < ?", filter.To)

	column, at := orderedBy(order.By, after)
	comparison, direction := " > ", ""
	if order.Descending {
		comparison, direction = " < ", " DESC"
	}
	if after != (chat.SessionPlace{}) {
		c.add("("+column+", id)"+comparison+"(?, ?)", at, after.ID)
	}
	return selectSessionColumns + c.where() + " ORDER BY " + column + direction + ", id" + direction + " LIMIT ?",
		append(c.args, max(limit, 0))
}

// orderedBy gives the column by which a list is ordered, and what a place has in it.
func orderedBy(by chat.SessionSort, place chat.SessionPlace) (column string, at any) {
	switch by {
	case chat.SortByUser:
		return "user_id", place.Text
	case chat.SortByCreated:
		return "created_at", place.Number
	case chat.SortByMessages:
		return "messages", place.Number
	case chat.SortByTokens:
		return "tokens", place.Number
	}
	return "last_active_at", place.Number
}

// conditions are those of a query, all of which hold, and their arguments.
type conditions struct {
	all  []string
	args []any
}

func (c *conditions) add(condition string, args ...any) {
	c.all = append(c.all, condition)
	c.args = append(c.args, args...)
}

// addText adds a condition, unless the text that is looked for is empty.
func (c *conditions) addText(condition, text string) {
	if text != "" {
		c.add(condition, text)
	}
}

// addTime adds a condition, unless the time is zero.
func (c *conditions) addTime(condition string, t time.Time) {
	if !t.IsZero() {
		c.add(condition, t.UnixMilli())
	}
}

func (c *conditions) where() string {
	if len(c.all) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(c.all, " AND ")
}
