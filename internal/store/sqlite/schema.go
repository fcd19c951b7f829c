package sqlite

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations lead from an empty file to today's schema; the file's user_version counts those it has had. One that
// was released is never edited: a change of the schema is a further one.
var migrations = []string{version1, version2, version3, version4, version5}

// Times are milliseconds since 1970 UTC. Columns that may be NULL hold JSON.
//
// Messages lie on disk in the order in which a session reads them. Their long columns stand last, so that the
// others are found without reading through the pages into which these overflow.
const version1 = `
CREATE TABLE sessions (
	id             TEXT    NOT NULL PRIMARY KEY,
	user_id        TEXT    NOT NULL,
	title          TEXT    NOT NULL,
	model          TEXT    NOT NULL,
	status         TEXT    NOT NULL,
	created_at     INTEGER NOT NULL,
	last_active_at INTEGER NOT NULL,
	assisted_by    TEXT,
	help_requested INTEGER NOT NULL,
	help_reason    TEXT    NOT NULL,
	end_reason     TEXT    NOT NULL,
	metadata       TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
	session_id     TEXT    NOT NULL REFERENCES sessions (id),
	n              INTEGER NOT NULL,
	message_id     TEXT    NOT NULL,
	role           TEXT    NOT NULL,
	status         TEXT    NOT NULL,
	finish_reason  TEXT    NOT NULL,
	error          TEXT,
	created_at     INTEGER NOT NULL,
	author         TEXT,
	model          TEXT    NOT NULL,
	provider       TEXT    NOT NULL,
	reply_to       TEXT    NOT NULL,
	replaces       TEXT    NOT NULL,
	answer_id      TEXT    NOT NULL,
	usage          TEXT,
	first_token_ms INTEGER NOT NULL,
	duration_ms    INTEGER NOT NULL,
	reasoning      TEXT    NOT NULL,
	text           TEXT    NOT NULL,
	PRIMARY KEY (session_id, n),
	UNIQUE (session_id, message_id)
) STRICT, WITHOUT ROWID;
`

// Version 2 knows who continues a session's log, and where in it each message lies.
//
// A message of version 1 lies where its log had it whenever it was loaded: message n at seq n. A response without its
// end has no place yet.
const version2 = `
ALTER TABLE sessions ADD COLUMN owner          TEXT    NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN epoch          TEXT    NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN log_end        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN changed        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN response_times TEXT;
ALTER TABLE messages ADD COLUMN seq            INTEGER NOT NULL DEFAULT 0;

UPDATE messages SET seq = n WHERE status <> 'streaming';
UPDATE sessions SET log_end = (SELECT coalesce(max(n), 0) FROM messages WHERE session_id = sessions.id);

CREATE INDEX messages_by_seq ON messages (session_id, seq) WHERE seq > 0;

CREATE TABLE store (
	id TEXT NOT NULL PRIMARY KEY -- its one row names the data in this file
) STRICT, WITHOUT ROWID;
INSERT INTO store VALUES (lower(hex(randomblob(16))));
`

// Version 3 knows what responses cost, each and all of a session's, and what providers keep with a session.
//
// The usage of a user lies on disk in the order of time, so that a recent part of it is found and read in one piece. It
// refers to no session, which it outlives. What version 2 knows of it stands with the messages; prices it had none.
const version3 = `
ALTER TABLE sessions ADD COLUMN usage           TEXT;
ALTER TABLE sessions ADD COLUMN provider_states TEXT;

CREATE TABLE usage (
	user_id       TEXT    NOT NULL,
	at            INTEGER NOT NULL,
	session_id    TEXT    NOT NULL,
	message_id    TEXT    NOT NULL,
	model         TEXT    NOT NULL,
	input_tokens  INTEGER NOT NULL,
	output_tokens INTEGER NOT NULL,
	estimated     INTEGER NOT NULL,
	cost_micros   INTEGER NOT NULL,
	PRIMARY KEY (user_id, at, session_id, message_id),
	UNIQUE (session_id, message_id)
) STRICT, WITHOUT ROWID;

INSERT INTO usage
SELECT s.user_id, m.created_at, m.session_id, m.message_id, m.model,
	m.usage ->> 'input_tokens', m.usage ->> 'output_tokens', coalesce(m.usage ->> 'estimated', 0), 0
FROM messages m JOIN sessions s ON s.id = m.session_id
WHERE m.usage IS NOT NULL AND m.status <> 'streaming';

UPDATE sessions
SET usage = (
	SELECT json_object('input_tokens', sum(input_tokens), 'output_tokens', sum(output_tokens),
		'estimated', json(iif(max(estimated), 'true', 'false')))
	FROM usage WHERE session_id = sessions.id
)
WHERE id IN (SELECT session_id FROM usage);
`

// Version 4 knows which text is encrypted, in which order a session's record was changed, and finds sessions by their
// user and their last activity, and usage by its time.
const version4 = `
ALTER TABLE sessions ADD COLUMN sealed   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN sealed   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store    ADD COLUMN seal_check TEXT NOT NULL DEFAULT '';

CREATE INDEX sessions_by_user     ON sessions (user_id, last_active_at, id);
CREATE INDEX sessions_by_activity ON sessions (last_active_at, id);
CREATE INDEX sessions_by_owner    ON sessions (owner) WHERE owner <> '';
CREATE INDEX usage_by_time        ON usage (at);
`

// Version 5 lists the sessions in several orders, and has what staff did: which tokens they revoked, and their audit
// records.
//
// A session has as many messages as have a place in its log.
const version5 = `
ALTER TABLE sessions ADD COLUMN messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN tokens   INTEGER NOT NULL
	AS (coalesce(usage ->> 'input_tokens', 0) + coalesce(usage ->> 'output_tokens', 0)) VIRTUAL;

UPDATE sessions
SET messages = (SELECT count(*) FROM messages WHERE session_id = sessions.id AND seq > 0);

CREATE INDEX sessions_by_creation ON sessions (created_at, id);
CREATE INDEX sessions_by_user_id  ON sessions (user_id, id);
CREATE INDEX sessions_by_messages ON sessions (messages, id);
CREATE INDEX sessions_by_tokens   ON sessions (tokens, id);

CREATE TABLE revocations (
	user_id  TEXT    NOT NULL,
	token_id TEXT    NOT NULL,
	at       INTEGER NOT NULL,
	until    INTEGER NOT NULL, -- the highest number: it is not known
	PRIMARY KEY (user_id, token_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
	id            TEXT    NOT NULL PRIMARY KEY,
	at            INTEGER NOT NULL,
	actor_id      TEXT    NOT NULL,
	actor_name    TEXT    NOT NULL,
	address       TEXT    NOT NULL,
	action        TEXT    NOT NULL,
	user_id       TEXT    NOT NULL,
	session_id    TEXT    NOT NULL,
	connection_id TEXT    NOT NULL,
	detail        TEXT    NOT NULL,
	outcome       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_by_time  ON audit (at, id);
CREATE INDEX audit_by_user  ON audit (user_id, at, id);
CREATE INDEX audit_by_actor ON audit (actor_id, at, id);
`

// migrate brings the schema up to date, each step in a transaction of its own.
func migrate(ctx context.Context, db *sql.DB) error {
	for {
		current, err := migrateOnce(ctx, db)
		if err != nil || current {
			return err
		}
	}
}

// migrateOnce takes the next step, or reports that the schema is current. The version is read under the write lock,
// so two processes that start at once do not take the same step.
func migrateOnce(ctx context.Context, db *sql.DB) (current bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback() // does nothing after a commit

	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return false, fmt.Errorf("read the schema version: %w", err)
	}
	switch {
	case version < 0 || version > len(migrations):
		return false, fmt.Errorf("the file has schema version %d and this Parley knows versions up to %d: start the "+
			"Parley that wrote it, or a newer one, or restore a backup from before the upgrade", version, len(migrations))
	case version == len(migrations):
		return true, nil
	}
	if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
		return false, fmt.Errorf("migrate to schema version %d: %w", version+1, err)
	}
	// A PRAGMA takes no parameters.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version+1)); err != nil {
		return false, fmt.Errorf("write the schema version: %w", err)
	}
	return false, tx.Commit()
}
