package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// leaseKept is how long the lease of an owner is kept that does not renew it: long enough for whoever looks at its beat
// to see that it stands still.
const leaseKept = 24 * time.Hour

// lease is what an owner of claims says of itself.
type lease struct {
	Owner string `bson:"_id"`
	Beat  int64  `bson:"beat"` // rises with each renewal

	// RenewedAt is by the clock of MongoDB's primary, and compared with nothing but others of it.
	RenewedAt bson.DateTime `bson:"renewed_at"`
}

// RenewLease implements [chat.Store].
func (s *Store) RenewLease(ctx context.Context, owner string) (map[string]int64, error) {
	others, err := s.renewLease(ctx, owner)
	return others, failure(err, "renew lease")
}

func (s *Store) renewLease(ctx context.Context, owner string) (map[string]int64, error) {
	raw, err := s.owners.FindOneAndUpdate(ctx, byID(owner), bson.D{
		{Key: "$inc", Value: bson.D{{Key: "beat", Value: int64(1)}}},
		{Key: "$currentDate", Value: bson.D{{Key: "renewed_at", Value: true}}},
	}, options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)).Raw()
	if err != nil {
		return nil, err
	}
	own, err := decode[lease](raw)
	if err != nil {
		return nil, err
	}
	leases, err := find[lease](ctx, s.owners, byID(bson.D{{Key: "$ne", Value: owner}}))
	if err != nil {
		return nil, err
	}
	others := make(map[string]int64)
	dead := own.RenewedAt - bson.DateTime(leaseKept.Milliseconds())
	for _, l := range leases {
		if l.RenewedAt >= dead {
			others[l.Owner] = l.Beat
			continue
		}
		// Unless it comes back at this moment.
		filter := and(byID(l.Owner), bson.D{{Key: "beat", Value: l.Beat}})
		if _, err := s.owners.DeleteOne(ctx, filter); err != nil {
			return nil, err
		}
	}
	return others, nil
}

// EndLease implements [chat.Store].
func (s *Store) EndLease(ctx context.Context, owner string) error {
	_, err := s.owners.DeleteOne(ctx, byID(owner))
	return failure(err, "end lease")
}
