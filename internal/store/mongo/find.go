package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/parley-chat/parley/chat"
)

// FindSessions implements [chat.Store].
func (s *Store) FindSessions(
	ctx context.Context, filter chat.SessionFilter, order chat.SessionOrder, place chat.SessionPlace, limit int,
) ([]chat.Session, error) {
	field, at := orderedBy(order.By, place)
	operator, direction := "$gt", 1
	if order.Descending {
		operator, direction = "$lt", -1
	}
	conditions := found(filter)
	if place != (chat.SessionPlace{}) {
		conditions = append(conditions, after(operator, field, at, "_id", place.ID))
	}
	documents, err := findPage[sessionDocument](ctx, s.sessions, all(conditions),
		bson.D{{Key: field, Value: direction}, {Key: "_id", Value: direction}}, limit)
	return sessionsOf(documents), failure(err, "find sessions")
}

// orderedBy gives the field by which a list is ordered, and what a place has in it.
func orderedBy(by chat.SessionSort, place chat.SessionPlace) (field string, at any) {
	switch by {
	case chat.SortByUser:
		return "user_id", place.Text
	case chat.SortByCreated:
		return "created_at", bson.DateTime(place.Number)
	case chat.SortByMessages:
		return "messages", place.Number
	case chat.SortByTokens:
		return "tokens", place.Number
	}
	return "last_active_at", bson.DateTime(place.Number)
}

// found are the conditions for the sessions that a filter chooses.
func found(filter chat.SessionFilter) (conditions bson.A) {
	conditions = addText(conditions, "user_id", filter.UserID)
	conditions = addText(conditions, "status", string(filter.Status))
	conditions = addText(conditions, "model", filter.Model)
	if filter.Assisted != nil {
		nobody := bson.D{{Key: "assisted_by", Value: nil}}
		if *filter.Assisted {
			nobody = bson.D{{Key: "assisted_by", Value: bson.D{{Key: "$ne", Value: nil}}}}
		}
		conditions = append(conditions, nobody)
	}
	if filter.HelpRequested != nil {
		conditions = append(conditions, bson.D{{Key: "help_requested", Value: *filter.HelpRequested}})
	}
	conditions = addTime(conditions, "last_active_at", "$gte", filter.From)
	return addTime(conditions, "created_at", "$lt", filter.To)
}

// addText adds a condition, unless the text that is looked for is empty.
func addText(conditions bson.A, field, text string) bson.A {
	if text == "" {
		return conditions
	}
	return append(conditions, bson.D{{Key: field, Value: text}})
}

// addTime adds a condition, unless the time is zero.
func addTime(conditions bson.A, field, operator string, t time.Time) bson.A {
	if t.IsZero() {
		return conditions
	}
	return append(conditions, bson.D{{Key: field, Value: bson.D{{Key: operator, Value: bson.NewDateTimeFromTime(t)}}}})
}

// all is the filter for what meets all conditions, several of which may be of the same field.
func all(conditions bson.A) bson.D {
	if len(conditions) == 0 {
		return bson.D{}
	}
	return bson.D{{Key: "$and", Value: conditions}}
}
