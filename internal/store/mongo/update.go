package mongo

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/chat"
)

// update is a change of a message on its way into the store.
type update struct {
	sessionID, messageID string
	by                   claimDocument
	write                bson.ObjectID
	set                  bson.Raw
}

func (w update) size() int { return len(w.set) }

func (w update) filter() bson.D {
	return and(messageKey(w.sessionID, w.messageID), streaming, claimedBy(w.by))
}

// UpdateMessage implements [chat.Store].
//
// An update of which the caller has stopped to wait may come after the next one. Then a message that is streaming has an
// earlier text for a while, until its next update or its end; one that has ended keeps its text.
func (s *Store) UpdateMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	w := update{sessionID: sessionID, messageID: m.ID, by: claimDocument(by), write: bson.NewObjectID()}
	var err error
	if w.set, err = encode(set(changesOf(&m, w.write))); err == nil {
		err = s.updates.submit(ctx, w)
	}
	return failure(err, "update message %s of session %s", m.ID, sessionID)
}

// updateMessages does a group of updates. The server tells only how many of them found their message: where that is not
// all, it is seen from the messages which.
func (s *Store) updateMessages(ctx context.Context, group []update, results []error) error {
	models := make([]mongo.WriteModel, 0, len(group))
	for _, w := range group {
		models = append(models, mongo.NewUpdateOneModel().SetFilter(w.filter()).SetUpdate(w.set))
	}
	result, err := s.messages.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	if err := divide(err, results); err != nil {
		return err
	}
	var open []int
	for i := range group {
		if results[i] == nil {
			open = append(open, i)
		}
	}
	switch {
	case int(result.MatchedCount) == len(open):
		return nil
	case len(open) == 1:
		results[open[0]] = chat.ErrStale
		return nil
	}
	return s.tellApart(ctx, group, open, results)
}

// tellApart finds out which of some updates were done.
func (s *Store) tellApart(ctx context.Context, group []update, open []int, results []error) error {
	var keys bson.A
	for _, i := range open {
		keys = append(keys, messageKey(group[i].sessionID, group[i].messageID))
	}
	written, err := find[written](ctx, s.messages, bson.D{{Key: "$or", Value: keys}}, options.Find().SetProjection(bson.D{
		{Key: "session_id", Value: 1}, {Key: "message_id", Value: 1}, {Key: "claim", Value: 1}, {Key: "status", Value: 1},
		{Key: "write", Value: 1},
	}))
	if err != nil {
		return err
	}
	for _, i := range open {
		results[i] = s.outcome(ctx, group[i], written)
	}
	return nil
}

// written is what a message tells of its last update.
type written struct {
	SessionID string        `bson:"session_id"`
	MessageID string        `bson:"message_id"`
	Claim     claimDocument `bson:"claim"`
	Status    chat.Status   `bson:"status"`
	Write     bson.ObjectID `bson:"write"`
}

// outcome is the error of an update of which it is not known whether it was done. Where another one of the same message
// may have followed it, it is done again: it was submitted before that one returned.
func (s *Store) outcome(ctx context.Context, w update, all []written) error {
	for _, m := range all {
		if m.SessionID != w.sessionID || m.MessageID != w.messageID {
			continue
		}
		switch {
		case m.Write == w.write:
			return nil
		case m.Status == chat.StatusStreaming && m.Claim == w.by:
			result, err := s.messages.UpdateOne(ctx, w.filter(), w.set)
			if err == nil && result.MatchedCount == 0 {
				err = chat.ErrStale
			}
			return err
		}
	}
	return chat.ErrStale
}
