package mongo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/auth"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"github.com/parley-chat/parley/chat"
)

var errClosed = errors.New("the store is closed")

// Error codes of the server (https://www.mongodb.com/docs/manual/reference/error-codes/).
const (
	codeUnauthorized         = 13
	codeIndexOptionsConflict = 85
	codeIndexKeySpecs        = 86
)

// failure wraps what made an operation fail; it is nil for nil. The format names the operation.
func failure(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), explain(err))
}

// explain turns what the driver reports into the contract's errors.
func explain(err error) error {
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return chat.ErrNotFound
	case mongo.IsDuplicateKeyError(err):
		return chat.ErrExists
	case errors.Is(err, mongo.ErrClientDisconnected):
		return errClosed
	}
	return err
}

// explainOpen adds what to do about an error that keeps the store from being opened.
func explainOpen(err error, database string) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case isAuthError(err):
		return fmt.Errorf("the user or the password is wrong, or the user is known to another database than the URI's "+
			"authSource: %w", err)
	case hasCode(err, codeUnauthorized):
		return fmt.Errorf("the user may not do that: give it the role readWrite on the database %s: %w", database, err)
	case hasCode(err, codeIndexOptionsConflict), hasCode(err, codeIndexKeySpecs):
		return fmt.Errorf("another index stands where one is needed: drop it, if nothing else needs it, or take another "+
			"database: %w", err)
	case Transient(err):
		return fmt.Errorf("the server does not answer: start it, or correct the URI, or what lies between here and "+
			"there: %w", err)
	}
	return err
}

// checkURI refuses a URI that could be read in two ways: the rest of a password would be taken for a host, and shown.
func checkURI(uri string) error {
	if strings.Count(uri, "@") > 1 {
		return errURI
	}
	return nil
}

var errURI = errors.New("the URI is not like mongodb://user:password@host:27017/?replicaSet=name, with all but letters, " +
	"digits and -._~ in user, password and options percent-encoded, or has an option that cannot be")

// explainURI tells of a URI that is not right. What the driver says of it may quote a part of it: where that could be a
// secret it is left out.
func explainURI(err error, uri string) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("look up the servers that the URI's host stands for: %w", dns)
	}
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("a file that the URI names: %w", file)
	}
	lower := strings.ToLower(uri)
	for _, sign := range []string{"@", "password", "properties"} {
		if strings.Contains(lower, sign) {
			return errURI
		}
	}
	return fmt.Errorf("%w: %w", errURI, err)
}

// transientLabels are what the server and the driver say of an error after which the same may succeed. The first is the
// driver's own for a connection that failed; the others come from the specifications "Retryable Writes", "Client
// Backpressure" and "Transactions" (https://github.com/mongodb/specifications).
var transientLabels = []string{
	"NetworkError",
	driver.RetryableWriteError,
	driver.ErrRetryableError,
	driver.ErrSystemOverloadedError,
	driver.TransientTransactionError,
}

// transientCodes are the server's errors that the specifications "Retryable Writes" and "Retryable Reads" name: all tell
// of a server that goes, comes, or is not the primary any more.
var transientCodes = []int{
	6,     // HostUnreachable
	7,     // HostNotFound
	89,    // NetworkTimeout
	91,    // ShutdownInProgress
	134,   // ReadConcernMajorityNotAvailableYet
	189,   // PrimarySteppedDown
	262,   // ExceededTimeLimit
	9001,  // SocketException
	10107, // NotWritablePrimary
	11600, // InterruptedAtShutdown
	11602, // InterruptedDueToReplStateChange
	13435, // NotPrimaryNoSecondaryOk
	13436, // NotPrimaryOrSecondary
}

// Transient reports whether the operation that gave this error may succeed when it is done again, unchanged, a little
// later. A time limit that was passed is among that, whosever it was, and so is a connection that was given up: a caller
// knows whether its own context has ended.
func Transient(err error) bool {
	if err == nil || errors.Is(err, chat.ErrNotFound) || errors.Is(err, chat.ErrExists) || errors.Is(err, chat.ErrStale) {
		return false
	}
	if labeled, ok := errors.AsType[mongo.LabeledError](err); ok && slices.ContainsFunc(transientLabels, labeled.HasErrorLabel) {
		return true
	}
	if slices.ContainsFunc(mongo.ErrorCodes(err), func(code int) bool { return slices.Contains(transientCodes, code) }) {
		return true
	}
	if _, ok := errors.AsType[*auth.Error](err); ok || errors.Is(err, context.Canceled) {
		return false
	}
	return isUnreachable(err) || mongo.IsTimeout(err)
}

// isUnreachable reports whether no connection could be had.
func isUnreachable(err error) bool {
	if _, ok := errors.AsType[topology.ServerSelectionError](err); ok {
		return true
	}
	var pool driver.RetryablePoolError // the connections were given up because another operation's failed
	if errors.As(err, &pool) && pool.Retryable() {
		return true
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.Temporary() {
		return true
	}
	if errors.Is(err, topology.ErrPoolClosed) {
		return true // the server has left the replica set, and another takes its place
	}
	_, ok := errors.AsType[topology.ConnectionError](err)
	return ok && len(mongo.ErrorCodes(err)) == 0 // else the server has refused it
}

// isAuthError reports whether a connection was refused for who asked for it.
func isAuthError(err error) bool {
	_, ok := errors.AsType[*auth.Error](err)
	return ok && !Transient(err)
}

func hasCode(err error, code int) bool { return slices.Contains(mongo.ErrorCodes(err), code) }
