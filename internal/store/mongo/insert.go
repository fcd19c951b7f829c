package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/chat"
)

// insertion is a message on its way into the store.
type insertion struct {
	id                   bson.ObjectID
	sessionID, messageID string
	by                   claimDocument
	document             bson.Raw
}

func (w insertion) size() int { return len(w.document) }

// InsertMessage implements [chat.Store].
func (s *Store) InsertMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	d := messageToDocument(sessionID, by, &m)
	document, err := encode(d)
	if err == nil {
		err = s.insertions.submit(ctx, insertion{d.ID, sessionID, m.ID, d.Claim, document})
	}
	return failure(err, "insert message %s of session %s", m.ID, sessionID)
}

// insertMessages inserts a group of messages between two looks at their sessions.
//
// The first look refuses, before anything is changed, what a session's claim forbids. The second finds the claims that
// were lost, and the sessions that were deleted, while the messages were inserted: a message of a deleted session is
// removed, and one that its owner's successor may have read already is left to that one.
func (s *Store) insertMessages(ctx context.Context, group []insertion, results []error) error {
	before, err := s.readHoldings(ctx, group)
	if err != nil {
		return err
	}
	var chosen []int
	for i, w := range group {
		if results[i] = before.check(w); results[i] == nil {
			chosen = append(chosen, i)
		}
	}
	if len(chosen) == 0 {
		return s.settle(ctx, group, results, before)
	}
	if err := s.insertChosen(ctx, group, chosen, results); err != nil {
		return err
	}
	now, err := s.readHoldings(ctx, group)
	if err != nil {
		return err
	}
	for _, i := range chosen {
		if refusal := now.check(group[i]); refusal != nil {
			results[i] = refusal
		} else if id := group[i].sessionID; now[id].CreatedAt != before[id].CreatedAt {
			results[i] = chat.ErrNotFound // it is another session, which has taken the ID
		}
	}
	return s.settle(ctx, group, results, now)
}

// insertChosen inserts some of the group.
func (s *Store) insertChosen(ctx context.Context, group []insertion, chosen []int, results []error) error {
	documents := make([]any, 0, len(chosen))
	for _, i := range chosen {
		documents = append(documents, group[i].document)
	}
	_, err := s.messages.InsertMany(ctx, documents, options.InsertMany().SetOrdered(false))
	own := make([]error, len(chosen))
	if err := divide(err, own); err != nil {
		return err
	}
	var taken []bson.ObjectID
	for j, i := range chosen {
		if results[i] = own[j]; mongo.IsDuplicateKeyError(own[j]) {
			taken = append(taken, group[i].id)
		}
	}
	if len(taken) == 0 {
		return nil
	}
	// What stands where a message is to go can be that message: this may be a repetition, by the batcher or the driver, of
	// a command that was done and failed afterwards.
	stored, err := find[identified](ctx, s.messages, byID(bson.D{{Key: "$in", Value: taken}}),
		options.Find().SetProjection(byID(1)))
	if err != nil {
		return err
	}
	for _, i := range chosen {
		if slices.Contains(stored, identified{group[i].id}) {
			results[i] = nil
		}
	}
	return nil
}

// identified is no more than the key of a message.
type identified struct {
	ID bson.ObjectID `bson:"_id"`
}

// holding is what an insertion has to know of a session.
type holding struct {
	ID        string         `bson:"_id"`
	Claim     claimDocument  `bson:"claim"`
	EndReason chat.EndReason `bson:"end_reason"`
	CreatedAt bson.DateTime  `bson:"created_at"`
}

// holdings are those of some sessions, by their IDs.
type holdings map[string]holding

func (s *Store) readHoldings(ctx context.Context, group []insertion) (holdings, error) {
	var ids []string
	for _, w := range group {
		ids = append(ids, w.sessionID)
	}
	slices.Sort(ids)
	all, err := find[holding](ctx, s.sessions, byID(bson.D{{Key: "$in", Value: slices.Compact(ids)}}),
		options.Find().SetProjection(bson.D{{Key: "claim", Value: 1}, {Key: "end_reason", Value: 1}, {Key: "created_at", Value: 1}}))
	if err != nil {
		return nil, fmt.Errorf("read the claims: %w", err)
	}
	found := make(holdings, len(all))
	for _, h := range all {
		found[h.ID] = h
	}
	return found, nil
}

// check tells why a message may not be inserted.
func (h holdings) check(w insertion) error {
	session, ok := h[w.sessionID]
	switch {
	case !ok, session.EndReason == chat.EndedByErasure:
		return chat.ErrNotFound
	case session.Claim != w.by:
		return chat.ErrStale
	}
	return nil
}

// settle removes what was inserted into sessions that are gone, by these insertions or by an earlier attempt at them,
// and hands over to the session's owner what was inserted under another claim. Where nobody has the session it is left to
// whoever claims it next.
func (s *Store) settle(ctx context.Context, group []insertion, results []error, now holdings) error {
	var models []mongo.WriteModel
	for i, w := range group {
		filter := and(messageKey(w.sessionID, w.messageID), claimedBy(w.by))
		owner := now[w.sessionID].Claim
		switch {
		case errors.Is(results[i], chat.ErrNotFound):
			models = append(models, mongo.NewDeleteOneModel().SetFilter(filter))
		case errors.Is(results[i], chat.ErrStale) && owner.Owner != "":
			models = append(models, mongo.NewUpdateOneModel().SetFilter(filter).SetUpdate(set(claimedBy(owner))))
		}
	}
	if len(models) == 0 {
		return nil
	}
	_, err := s.messages.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	return err
}
