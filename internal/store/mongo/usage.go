package mongo

import (
	"cmp"
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/chat"
)

// record is a usage record on its way into the store.
type record struct{ document bson.Raw }

func (w record) size() int { return len(w.document) }

// AddUsage implements [chat.Store].
func (s *Store) AddUsage(ctx context.Context, r chat.UsageRecord) error {
	document, err := encode(recordToDocument(r))
	if err == nil {
		err = s.records.submit(ctx, record{document})
	}
	return failure(err, "add usage of message %s of session %s", r.MessageID, r.SessionID)
}

// insertUsage inserts a group of records. Where there is one already, it stays.
func (s *Store) insertUsage(ctx context.Context, group []record, results []error) error {
	documents := make([]any, 0, len(group))
	for _, w := range group {
		documents = append(documents, w.document)
	}
	_, err := s.usage.InsertMany(ctx, documents, options.InsertMany().SetOrdered(false))
	if err := divide(err, results); err != nil {
		return err
	}
	for i, err := range results {
		if mongo.IsDuplicateKeyError(err) {
			results[i] = nil
		}
	}
	return nil
}

// group is what a sum is of.
type group struct {
	Day    bson.DateTime `bson:"day"`
	UserID string        `bson:"user_id"`
	Model  string        `bson:"model"`
}

// summed are the fields of a sum: where each goes, and what of the records is added up.
var summed = []struct {
	into func(*chat.UsageSum) *int64
	of   any
}{
	{func(s *chat.UsageSum) *int64 { return &s.Responses }, int64(1)},
	{func(s *chat.UsageSum) *int64 { return &s.Estimated }, "$estimated"},
	{func(s *chat.UsageSum) *int64 { return &s.InputTokens }, "$input_tokens"},
	{func(s *chat.UsageSum) *int64 { return &s.OutputTokens }, "$output_tokens"},
	{func(s *chat.UsageSum) *int64 { return &s.CostMicros }, "$cost_micros"},
}

// SumUsage implements [chat.Store]. The records are summed where they lie, one field after the other: FerretDB adds up
// no more than one. A record that comes meanwhile may be in some of the fields only.
func (s *Store) SumUsage(ctx context.Context, filter chat.UsageFilter) ([]chat.UsageSum, error) {
	sums, err := s.sumUsage(ctx, filter)
	return sums, failure(err, "sum usage")
}

func (s *Store) sumUsage(ctx context.Context, filter chat.UsageFilter) ([]chat.UsageSum, error) {
	found := make(map[group]*chat.UsageSum)
	for _, field := range summed {
		totals, err := s.total(ctx, filter, field.of)
		if err != nil {
			return nil, err
		}
		for of, total := range totals {
			if found[of] == nil {
				found[of] = &chat.UsageSum{UserID: of.UserID, Model: of.Model, Day: moment(of.Day)}
			}
			*field.into(found[of]) = total
		}
	}
	var sums []chat.UsageSum
	for _, sum := range found {
		sums = append(sums, *sum)
	}
	slices.SortFunc(sums, func(a, b chat.UsageSum) int {
		return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Model, b.Model))
	})
	return sums, nil
}

// total adds up one thing of the records, by user, model and day.
func (s *Store) total(ctx context.Context, filter chat.UsageFilter, of any) (map[group]int64, error) {
	cursor, err := s.usage.Aggregate(ctx, mongo.Pipeline{
		{{Key: "$match", Value: chosen(filter)}},
		{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: bson.D{
				{Key: "day", Value: "$day"}, {Key: "user_id", Value: "$user_id"}, {Key: "model", Value: "$model"},
			}},
			{Key: "total", Value: bson.D{{Key: "$sum", Value: of}}},
		}}},
	})
	if err != nil {
		return nil, err
	}
	var documents []struct {
		Of    group `bson:"_id"`
		Total int64 `bson:"total"`
	}
	if err := cursor.All(ctx, &documents); err != nil {
		return nil, err
	}
	totals := make(map[group]int64, len(documents))
	for _, d := range documents {
		totals[d.Of] = d.Total
	}
	return totals, nil
}

// UsageAfter implements [chat.Store].
func (s *Store) UsageAfter(
	ctx context.Context, filter chat.UsageFilter, sessionID, messageID string, limit int,
) (records []chat.UsageRecord, err error) {
	documents, err := findPage[recordDocument](ctx, s.usage,
		and(chosen(filter), after("$gt", "session_id", sessionID, "message_id", messageID)),
		bson.D{{Key: "session_id", Value: 1}, {Key: "message_id", Value: 1}}, limit)
	for _, d := range documents {
		records = append(records, d.record())
	}
	return records, failure(err, "read usage")
}

// DeleteUsage implements [chat.Store].
func (s *Store) DeleteUsage(ctx context.Context, filter chat.UsageFilter) error {
	_, err := s.usage.DeleteMany(ctx, chosen(filter))
	return failure(err, "delete usage")
}

// chosen is the filter for the records that another chooses.
func chosen(filter chat.UsageFilter) bson.D {
	all := bson.D{}
	if filter.UserID != "" {
		all = append(all, bson.E{Key: "user_id", Value: filter.UserID})
	}
	at := bson.D{}
	if !filter.From.IsZero() {
		at = append(at, bson.E{Key: "$gte", Value: bson.NewDateTimeFromTime(filter.From)})
	}
	if !filter.To.IsZero() {
		at = append(at, bson.E{Key: "$lt", Value: bson.NewDateTimeFromTime(filter.To)})
	}
	if len(at) > 0 {
		all = append(all, bson.E{Key: "at", Value: at})
	}
	return all
}
