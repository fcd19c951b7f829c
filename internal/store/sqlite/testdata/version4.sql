-- What a Parley whose schema was version 4 wrote.

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
, owner          TEXT    NOT NULL DEFAULT '', epoch          TEXT    NOT NULL DEFAULT '', log_end        INTEGER NOT NULL DEFAULT 0, changed        INTEGER NOT NULL DEFAULT 0, response_times TEXT, usage           TEXT, provider_states TEXT, sealed   INTEGER NOT NULL DEFAULT 0, revision INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
INSERT INTO sessions VALUES('active','ada','An active one','eliza','active',1772668798089,1772668858089,'{"id":"grace","name":"Grace"}',1,'it is stuck','','{"page":"/prices"}','server 1','epoch 1',9,7,'[{"first_token_ms":12,"total_ms":345},{"first_token_ms":20,"total_ms":3000}]','{"input_tokens":33,"output_tokens":22,"estimated":true}',NULL,0,0);
INSERT INTO sessions VALUES('ended','bob','An ended one','eliza','ended',1772668798089,1772668798089,NULL,0,'','user',NULL,'','',6,6,'[{"first_token_ms":1,"total_ms":2}]','{"input_tokens":5,"output_tokens":7,"estimated":false}',NULL,0,0);
INSERT INTO sessions VALUES('fourth','dora','sealed title','eliza','active',1783501811012,1783501871012,NULL,0,'','','{"plan":"free"}','server 4','epoch 4',5,0,'[{"first_token_ms":7,"total_ms":70}]','{"input_tokens":8,"output_tokens":9}',NULL,1,1783501811012000);
INSERT INTO sessions VALUES('third','cleo','Of version 3','eliza','active',1778051289010,1778054889010,NULL,0,'','','{"plan":"gold"}','server 3','epoch 3',4,4,NULL,'{"input_tokens":5,"output_tokens":6}','{"dify":"conversation 7"}',0,0);
INSERT INTO sessions VALUES('unanswered','ada','','eliza','active',1772668798089,1772668798089,NULL,0,'','',NULL,'','',1,0,NULL,NULL,NULL,0,0);
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
	text           TEXT    NOT NULL, seq            INTEGER NOT NULL DEFAULT 0, sealed   INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (session_id, n),
	UNIQUE (session_id, message_id)
) STRICT, WITHOUT ROWID;
INSERT INTO messages VALUES('active',1,'q1','user','complete','',NULL,1772668798089,'{"id":"ada","name":"Ada"}','','','','','a1',NULL,0,0,'','Why?',1,0);
INSERT INTO messages VALUES('active',2,'a1','assistant','complete','stop',NULL,1772668798089,NULL,'eliza','doctor','q1','','','{"input_tokens":3,"output_tokens":2,"estimated":true}',12,345,'hm','Because.',3,0);
INSERT INTO messages VALUES('active',3,'a2','assistant','cancelled','cancelled',NULL,1772668798089,NULL,'eliza','doctor','q1','a1','','{"input_tokens":30,"output_tokens":20}',20,3000,'','Just because.',5,0);
INSERT INTO messages VALUES('active',4,'a3','assistant','failed','','{"code":"llm_timeout","message":"too slow","retry_after_ms":1000,"field":"text"}',1772668798089,NULL,'eliza','','q1','a2','',NULL,0,1000,'','',6,0);
INSERT INTO messages VALUES('active',5,'a4','assistant','streaming','',NULL,1772668798089,NULL,'eliza','doctor','q1','a3','','{"input_tokens":30,"output_tokens":1}',0,0,'','I was',0,0);
INSERT INTO messages VALUES('ended',1,'q1','user','complete','',NULL,1772668798089,'{"id":"bob","name":"Bob"}','','','','','a1',NULL,0,0,'','Bye',1,0);
INSERT INTO messages VALUES('ended',2,'a1','assistant','complete','stop',NULL,1772668798089,NULL,'eliza','doctor','q1','','','{"input_tokens":5,"output_tokens":7}',1,2,'','Bye, Bob.',5,0);
INSERT INTO messages VALUES('fourth',1,'q1','user','complete','',NULL,1783501811012,'{"id":"dora","name":"Dora"}','','','','','a1',NULL,0,0,'','sealed question',1,1);
INSERT INTO messages VALUES('fourth',2,'a1','assistant','complete','stop',NULL,1783501811012,NULL,'eliza','doctor','q1','','','{"input_tokens":8,"output_tokens":9}',7,70,'sealed reasoning','sealed answer',5,1);
INSERT INTO messages VALUES('fourth',3,'q2','user','complete','',NULL,1783501871012,'{"id":"dora","name":"Dora"}','','','','','a2',NULL,0,0,'','sealed again',0,1);
INSERT INTO messages VALUES('third',1,'q1','user','complete','',NULL,1778051289010,'{"id":"cleo","name":"Cleo"}','','','','','a1',NULL,0,0,'','Héllo 👋',1,0);
INSERT INTO messages VALUES('third',2,'a1','assistant','streaming','',NULL,1778051289010,NULL,'eliza','eliza','q1','','',NULL,0,0,'','Hi, as far as',0,0);
INSERT INTO messages VALUES('unanswered',1,'q1','user','complete','',NULL,1772668798089,'{"id":"ada","name":"Ada"}','','','','','a1',NULL,0,0,'','Is anybody there?',1,0);
CREATE TABLE store (
	id TEXT NOT NULL PRIMARY KEY -- its one row names the data in this file
, seal_check TEXT NOT NULL DEFAULT '') STRICT, WITHOUT ROWID;
INSERT INTO store VALUES('725aa112e0df169a6da9ac950019b85b','a seal''s check');
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
INSERT INTO usage VALUES('ada',1772668798089,'active','a1','eliza',3,2,1,0);
INSERT INTO usage VALUES('ada',1772668798089,'active','a2','eliza',30,20,0,0);
INSERT INTO usage VALUES('bob',1772668798089,'ended','a1','eliza',5,7,0,0);
INSERT INTO usage VALUES('cleo',1778051289010,'third','a0','eliza',5,6,0,70);
INSERT INTO usage VALUES('dora',1783501811012,'fourth','a1','eliza',8,9,0,80);
CREATE INDEX messages_by_seq ON messages (session_id, seq) WHERE seq > 0;
CREATE INDEX sessions_by_user     ON sessions (user_id, last_active_at, id);
CREATE INDEX sessions_by_activity ON sessions (last_active_at, id);
CREATE INDEX sessions_by_owner    ON sessions (owner) WHERE owner <> '';
CREATE INDEX usage_by_time        ON usage (at);

PRAGMA user_version = 4;
