package mongo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/auth"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"github.com/parley-chat/parley/chat"
)

// cleared is what a pool of connections gives that were given up; the driver's is not exported.
type cleared struct{}

func (cleared) Error() string   { return "cleared" }
func (cleared) Retryable() bool { return true }

func TestTransient(t *testing.T) {
	command := func(code int32, labels ...string) error { return mongo.CommandError{Code: code, Labels: labels} }
	writeErrors := func(code int) mongo.WriteErrors { return mongo.WriteErrors{{Code: code}} }
	bulkErrors := func(code int) []mongo.BulkWriteError {
		return []mongo.BulkWriteError{{WriteError: mongo.WriteError{Code: code}}}
	}
	concern := func(code int) *mongo.WriteConcernError { return &mongo.WriteConcernError{Code: code} }
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"none":                            {nil, false},
		"any other":                       {errors.New("connection refused"), false}, // no text counts
		"the contract's NotFound":         {chat.ErrNotFound, false},
		"the contract's Exists":           {chat.ErrExists, false},
		"the contract's Stale":            {chat.ErrStale, false},
		"closed":                          {errClosed, false},
		"no document":                     {mongo.ErrNoDocuments, false},
		"disconnected":                    {mongo.ErrClientDisconnected, false},
		"context cancelled":               {context.Canceled, false},
		"context passed":                  {context.DeadlineExceeded, true},
		"network":                         {command(0, "NetworkError"), true},
		"network, cancelled":              {mongo.CommandError{Labels: []string{"NetworkError"}, Wrapped: context.Canceled}, true},
		"server selection":                {topology.ServerSelectionError{Wrapped: context.DeadlineExceeded}, true},
		"server selection, given up":      {topology.ServerSelectionError{Wrapped: context.Canceled}, false},
		"pool cleared":                    {cleared{}, true},
		"pool closed":                     {topology.ErrPoolClosed, true},
		"names not served":                {&net.DNSError{IsTemporary: true}, true},
		"no such name":                    {&net.DNSError{IsNotFound: true}, false},
		"wait for a connection":           {topology.WaitQueueTimeoutError{Wrapped: context.DeadlineExceeded}, true},
		"connection closed":               {topology.ErrConnectionClosed, true},
		"connection ended":                {topology.ConnectionError{Wrapped: io.EOF}, true},
		"authentication":                  {topology.ConnectionError{Wrapped: &auth.Error{}}, false},
		"authentication failed":           {command(18), false},
		"unauthorized":                    {command(13), false},
		"label RetryableWriteError":       {command(1, "RetryableWriteError"), true},
		"label RetryableError":            {command(1, "RetryableError"), true},
		"label SystemOverloadedError":     {command(1, "SystemOverloadedError"), true},
		"label TransientTransactionError": {command(1, "TransientTransactionError"), true},
		"another label":                   {command(1, "NoWritesPerformed"), false},
		"label of a write":                {mongo.WriteException{Labels: []string{"RetryableWriteError"}}, true},
		"label of a bulk write":           {mongo.BulkWriteException{Labels: []string{"RetryableWriteError"}}, true},
		"time of an operation":            {command(50), true}, // MaxTimeMSExpired
		"bad value":                       {command(2), false},
		"not implemented":                 {command(238), false},
		"write":                           {mongo.WriteException{WriteErrors: writeErrors(91)}, true},
		"duplicate key":                   {mongo.WriteException{WriteErrors: writeErrors(11000)}, false},
		"document too large":              {mongo.WriteException{WriteErrors: writeErrors(10334)}, false},
		"document not valid":              {mongo.WriteException{WriteErrors: writeErrors(121)}, false},
		"write concern":                   {mongo.WriteException{WriteConcernError: concern(91)}, true},
		"write concern, hopeless":         {mongo.WriteException{WriteConcernError: concern(100)}, false},
		"bulk write":                      {mongo.BulkWriteException{WriteErrors: bulkErrors(189)}, true},
		"bulk write, duplicate":           {mongo.BulkWriteException{WriteErrors: bulkErrors(11000)}, false},
		"bulk write concern":              {mongo.BulkWriteException{WriteConcernError: concern(11602)}, true},
		"write of a bulk":                 {mongo.WriteError{Code: 10107}, true},
		"write of a bulk, duplicate":      {mongo.WriteError{Code: 11000}, false},
		"newer record":                    {&newerError{2}, false},
	} {
		if got := Transient(test.err); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
		if wrapped := failure(test.err, "do %s", "it"); test.err != nil && Transient(wrapped) != test.want {
			t.Errorf("%s, wrapped: got %v, want %v", name, !test.want, test.want)
		}
	}
	for _, code := range transientCodes {
		if !Transient(command(int32(code))) {
			t.Errorf("code %d is not transient", code)
		}
	}
}

func TestFailureGivesTheContractsErrors(t *testing.T) {
	for _, test := range []struct{ err, want error }{
		{mongo.ErrNoDocuments, chat.ErrNotFound},
		{mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 11000}}}, chat.ErrExists},
		{mongo.WriteError{Code: 11000}, chat.ErrExists},
		{chat.ErrStale, chat.ErrStale},
		{mongo.ErrClientDisconnected, errClosed},
		{fmt.Errorf("wrapped: %w", context.Canceled), context.Canceled},
	} {
		if got := failure(test.err, "do %d", 1); !errors.Is(got, test.want) || !strings.HasPrefix(got.Error(), "do 1: ") {
			t.Errorf("%v: got error %v, want %v", test.err, got, test.want)
		}
	}
	if err := failure(nil, "do"); err != nil {
		t.Errorf("no error became %v", err)
	}
}

// Neither the password nor a part of it is shown, whatever is wrong with the URI.
func TestNoErrorHoldsThePassword(t *testing.T) {
	for _, uri := range []string{
		"mongodb://user:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=100",
		"mongodb://user:hun%ter2@127.0.0.1:1/",
		"mongodb://user:hun/ter2@127.0.0.1:1/",
		"mongodb://user:hun@ter2@127.0.0.1:1/",
		"mongodb://user:hun@ter2/x@127.0.0.1:1/",
		"mongodb://user:hun@ter2/?x=y@127.0.0.1:1/",
		"mongodb://user:hun?ter2@127.0.0.1:1/?serverSelectionTimeoutMS=100",
		"mongodb://user:hun:ter2@127.0.0.1:1/",
		"mongodb://user:hunter2@127.0.0.1:port/",
		"mongodb://user:hunter2@127.0.0.1:1/?ssl=hunter2",
		"mongodb://127.0.0.1:1/?tlsCertificateKeyFilePassword=hunter2&ssl=hunter2",
		"mongodb://127.0.0.1:1/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
		"mongodb+srv://user:hunter2@parley.invalid/",
		"postgres://user:hunter2@127.0.0.1:1/",
		"user:hunter2@127.0.0.1:1",
	} {
		s, err := Open(t.Context(), Config{URI: uri, Database: "parley"})
		if err == nil {
			s.Close()
			t.Fatalf("Open(%q) succeeded", uri)
		}
		for _, part := range []string{"hun", "ter2"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("Open(%q): the error holds %q: %v", uri, part, err)
			}
		}
	}
}

func TestOpenWithoutServerSaysWhatToDo(t *testing.T) {
	for uri, words := range map[string][]string{
		"mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100":         {"store parley at 127.0.0.1:1", "start it, or correct the URI"},
		"mongodb://127.0.0.1:1,[::1]:2/?serverSelectionTimeoutMS=100": {"at 127.0.0.1:1, [::1]:2"},
		"mongodb://127.0.0.1:1/?ssl=ja":                               {"percent-encoded", `invalid value for "ssl"`},
		"mongodb+srv://parley.invalid/":                               {"look up the servers", "parley.invalid"},
		"mongodb://u@127.0.0.1:1/?tls=true&tlsCAFile=/no/such/file":   {"a file that the URI names", "/no/such/file"},
		"": {"percent-encoded"},
	} {
		s, err := Open(t.Context(), Config{URI: uri, Database: "parley"})
		if err == nil {
			s.Close()
			t.Fatalf("Open(%q) succeeded", uri)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("Open(%q): the error lacks %q: %v", uri, word, err)
			}
		}
	}
	if _, err := Open(t.Context(), Config{URI: "mongodb://127.0.0.1:1/"}); err == nil {
		t.Error("Open without a database succeeded")
	}
}
