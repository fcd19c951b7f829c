package mongo

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// ForgetStaff removes what staff did, which no operation of a store does.
func (s *Store) ForgetStaff(ctx context.Context) error {
	_, revocations := s.revocations.DeleteMany(ctx, bson.D{})
	_, audit := s.audit.DeleteMany(ctx, bson.D{})
	return errors.Join(revocations, audit)
}
