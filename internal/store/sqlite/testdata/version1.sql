-- What a Parley whose schema was version 1 wrote.

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

INSERT INTO sessions VALUES ('active', 'ada', 'An active one', 'eliza', 'active', 1772600767089, 1772600827089, '{"id":"grace","name":"Grace"}', 1, 'it is stuck', '', '{"page":"/prices"}');
INSERT INTO sessions VALUES ('empty', 'ada', '', 'eliza', 'active', 1772600767089, 1772600767089, NULL, 0, '', '', NULL);
INSERT INTO sessions VALUES ('ended', 'bob', 'An ended one', 'eliza', 'ended', 1772600767089, 1772600767089, NULL, 0, '', 'user', NULL);
INSERT INTO messages VALUES ('active', 1, 'q1', 'user', 'complete', '', NULL, 1772600767089, '{"id":"ada","name":"Ada"}', '', '', '', '', 'a1', NULL, 0, 0, '', 'It''s "raining".
Why?');
INSERT INTO messages VALUES ('active', 2, 'a1', 'assistant', 'complete', 'stop', NULL, 1772600767089, NULL, 'eliza', 'doctor', 'q1', '', '', '{"input_tokens":3,"output_tokens":2,"estimated":true}', 12, 345, 'hm', 'Because.');
INSERT INTO messages VALUES ('active', 5, 'q2', 'user', 'complete', '', NULL, 1772600767089, '{"id":"ada","name":"Ada"}', '', '', '', 'q1', 'a2', NULL, 0, 0, '', 'Why, then?');
INSERT INTO messages VALUES ('active', 6, 'a2', 'assistant', 'failed', '', '{"code":"llm_timeout","message":"too slow","retry_after_ms":1000,"field":"text"}', 1772600767089, NULL, 'eliza', '', 'q2', '', '', NULL, 0, 0, '', 'Well');
INSERT INTO messages VALUES ('active', 9, 'a3', 'assistant', 'streaming', '', NULL, 1772600767089, NULL, 'eliza', '', 'q2', 'a2', '', NULL, 0, 0, '', 'I was');
INSERT INTO messages VALUES ('ended', 3, 'q1', 'user', 'complete', '', NULL, 1772600767089, '{"id":"bob","name":"Bob"}', '', '', '', '', '', NULL, 0, 0, '', 'Bye');

PRAGMA user_version = 1;
