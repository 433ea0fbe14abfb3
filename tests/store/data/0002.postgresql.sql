BEGIN;

CREATE TABLE audit (
	id BIGINT NOT NULL, 
	at FLOAT NOT NULL, 
	writer TEXT COLLATE "C" NOT NULL, 
	verb TEXT COLLATE "C" NOT NULL, 
	key TEXT COLLATE "C" NOT NULL, 
	uid TEXT COLLATE "C" NOT NULL, 
	allowed BIGINT NOT NULL, 
	reason TEXT COLLATE "C" NOT NULL, 
	request_id TEXT COLLATE "C" NOT NULL, 
	source TEXT COLLATE "C" NOT NULL, 
	digest TEXT COLLATE "C" NOT NULL, 
	PRIMARY KEY (id)
)

;

CREATE TABLE changes (
	revision BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	type BIGINT NOT NULL, 
	kind TEXT COLLATE "C" NOT NULL, 
	namespace TEXT COLLATE "C" NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	uid TEXT COLLATE "C" NOT NULL, 
	host TEXT COLLATE "C" NOT NULL, 
	labels TEXT COLLATE "C" NOT NULL, 
	labels_before TEXT COLLATE "C" NOT NULL, 
	body BYTEA NOT NULL, 
	PRIMARY KEY (revision)
)

;
CREATE INDEX changes_host ON changes (kind, host, revision) WHERE host <> '';

CREATE TABLE counters (
	name TEXT COLLATE "C" NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
)

;

CREATE TABLE dependents (
	owner TEXT COLLATE "C" NOT NULL, 
	uid TEXT COLLATE "C" NOT NULL, 
	PRIMARY KEY (owner, uid)
)

;
CREATE INDEX dependents_uid ON dependents (uid);

CREATE TABLE devices (
	host TEXT COLLATE "C" NOT NULL, 
	device TEXT COLLATE "C" NOT NULL, 
	model TEXT COLLATE "C" NOT NULL, 
	kind TEXT COLLATE "C" NOT NULL, 
	healthy BIGINT NOT NULL, 
	claim TEXT COLLATE "C" NOT NULL, 
	lost BIGINT NOT NULL, 
	PRIMARY KEY (host, device), 
	CHECK (lost = 0 OR claim <> '')
)

;
CREATE INDEX devices_claim ON devices (claim) WHERE claim <> '';

CREATE TABLE hosts (
	host TEXT COLLATE "C" NOT NULL, 
	schedulable BIGINT NOT NULL, 
	PRIMARY KEY (host)
)

;

CREATE TABLE labels (
	kind TEXT COLLATE "C" NOT NULL, 
	label TEXT COLLATE "C" NOT NULL, 
	value TEXT COLLATE "C" NOT NULL, 
	namespace TEXT COLLATE "C" NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	PRIMARY KEY (kind, label, value, namespace, name)
)

;

CREATE TABLE leases (
	name TEXT COLLATE "C" NOT NULL, 
	holder TEXT COLLATE "C" NOT NULL, 
	fence BIGINT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	ttl FLOAT NOT NULL, 
	note TEXT COLLATE "C" NOT NULL, 
	PRIMARY KEY (name)
)

;

CREATE TABLE ledger (
	id BIGSERIAL NOT NULL, 
	at BIGINT NOT NULL, 
	kind TEXT COLLATE "C" NOT NULL, 
	tenant TEXT COLLATE "C" NOT NULL, 
	project TEXT COLLATE "C" NOT NULL, 
	tenant_uid TEXT COLLATE "C" NOT NULL, 
	project_uid TEXT COLLATE "C" NOT NULL, 
	workload_kind TEXT COLLATE "C" NOT NULL, 
	workload_name TEXT COLLATE "C" NOT NULL, 
	workload_uid TEXT COLLATE "C" NOT NULL, 
	claim_uid TEXT COLLATE "C" NOT NULL, 
	host TEXT COLLATE "C" NOT NULL, 
	fake BIGINT NOT NULL, 
	state TEXT COLLATE "C", 
	flavor TEXT COLLATE "C" NOT NULL, 
	device_model TEXT COLLATE "C" NOT NULL, 
	devices BIGINT NOT NULL, 
	milli_cores BIGINT NOT NULL, 
	memory_bytes BIGINT NOT NULL, 
	model TEXT COLLATE "C" NOT NULL, 
	api_key TEXT COLLATE "C" NOT NULL, 
	requests BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	cached_input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	corrects BIGINT, 
	PRIMARY KEY (id)
)

;
CREATE INDEX ledger_claim ON ledger (claim_uid, id) WHERE claim_uid <> '';
CREATE UNIQUE INDEX ledger_once ON ledger (claim_uid, kind) WHERE kind IN ('open', 'close');
CREATE INDEX ledger_project ON ledger (project_uid, kind, at);
CREATE INDEX ledger_workload ON ledger (workload_uid, id);

CREATE TABLE numa (
	host TEXT COLLATE "C" NOT NULL, 
	node BIGINT NOT NULL, 
	milli_cores BIGINT NOT NULL, 
	milli_cores_used BIGINT NOT NULL, 
	memory_bytes BIGINT NOT NULL, 
	memory_bytes_used BIGINT NOT NULL, 
	PRIMARY KEY (host, node), 
	CHECK (milli_cores_used >= 0 AND memory_bytes_used >= 0)
)

;

CREATE TABLE objects (
	kind TEXT COLLATE "C" NOT NULL, 
	namespace TEXT COLLATE "C" NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	uid TEXT COLLATE "C" NOT NULL, 
	host TEXT COLLATE "C" NOT NULL, 
	generation BIGINT NOT NULL, 
	revision BIGINT NOT NULL, 
	updated BIGINT NOT NULL, 
	labels TEXT COLLATE "C" NOT NULL, 
	body BYTEA NOT NULL, 
	PRIMARY KEY (kind, namespace, name)
)

;
CREATE INDEX objects_events ON objects (updated) WHERE kind = 'Event';
CREATE INDEX objects_host ON objects (kind, host, namespace, name) WHERE host <> '';
CREATE UNIQUE INDEX objects_uid ON objects (uid);

CREATE TABLE quota (
	scope TEXT COLLATE "C" NOT NULL, 
	meter TEXT COLLATE "C" NOT NULL, 
	used BIGINT NOT NULL, 
	bound BIGINT, 
	PRIMARY KEY (scope, meter), 
	CHECK (used >= 0)
)

;

CREATE TABLE sealed (
	uid TEXT COLLATE "C" NOT NULL, 
	field TEXT COLLATE "C" NOT NULL, 
	ciphertext BYTEA NOT NULL, 
	PRIMARY KEY (uid, field)
)

;

CREATE TABLE spools (
	spool_uid TEXT COLLATE "C" NOT NULL, 
	gateway_uid TEXT COLLATE "C" NOT NULL, 
	sequence BIGINT NOT NULL, 
	PRIMARY KEY (spool_uid)
)

;
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'rows of % are final', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER ledger_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION refuse_change();
CREATE FUNCTION tell_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('bessemer', '');
    RETURN NULL;
END $$;
CREATE TRIGGER counters_tell AFTER UPDATE ON counters EXECUTE FUNCTION tell_change();
INSERT INTO counters VALUES ('revision', 0);
INSERT INTO counters VALUES ('floor', 0);
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0002');
INSERT INTO audit ("id", "at", "writer", "verb", "key", "uid", "allowed", "reason", "request_id", "source", "digest") VALUES (1, 1750000000.0, 'user:alice', 'create', 'Tenant acme', 'a554ac2a-eaaf-445e-8776-20ac2b7c0d6a', 1, '', 'r1', '10.0.0.1', '6a5b4e5f383e709cd457f85c1c5b953388042a6f9c48947aa2cb12c5de3baa42');
INSERT INTO audit ("id", "at", "writer", "verb", "key", "uid", "allowed", "reason", "request_id", "source", "digest") VALUES (2, 1750000000.0, 'user:alice', 'create', 'Thing acme--lab/a', 'a7d766b1-9aa2-4ae4-bfa7-ea583aed903f', 1, '', 'r1', '10.0.0.1', 'ce256d944324c6d702ac8860f63a57812c1ec3ded8c58cbdadebd289f4115fad');
INSERT INTO audit ("id", "at", "writer", "verb", "key", "uid", "allowed", "reason", "request_id", "source", "digest") VALUES (3, 1750000001.5, 'user:alice', 'update', 'Thing acme--lab/a', 'a7d766b1-9aa2-4ae4-bfa7-ea583aed903f', 1, '', 'r1', '10.0.0.1', '14787a3e489902f91bd2908e21724e59960a3bf22906eab2f83ee4856f2131e5');
INSERT INTO audit ("id", "at", "writer", "verb", "key", "uid", "allowed", "reason", "request_id", "source", "digest") VALUES (4, 1750000001.5, 'user:bob', 'delete', 'Thing acme--lab/a', '', 0, 'not yours', '', '', '32e6b46da808f48e7d48e7ac0330c53fa8ca33b580bc38808156d8e4a916799f');
INSERT INTO audit ("id", "at", "writer", "verb", "key", "uid", "allowed", "reason", "request_id", "source", "digest") VALUES (5, 1750000001.5, 'user:alice', 'login', 'User alice', '', 1, '', 'r1', '10.0.0.1', 'b2aa513af99f05a9187b429f2d32d891cc37a38615ad7804f2663153cb261dc5');
INSERT INTO changes ("revision", "at", "type", "kind", "namespace", "name", "uid", "host", "labels", "labels_before", "body") VALUES (1, 1750000000, 0, 'Tenant', '', 'acme', 'a554ac2a-eaaf-445e-8776-20ac2b7c0d6a', '', '', '', '\x7b2261706956657273696f6e223a2262657373656d65722e6465762f7631616c70686131222c226b696e64223a2254656e616e74222c226d65746164617461223a7b226e616d65223a2261636d65222c22756964223a2261353534616332612d656161662d343435652d383737362d323061633262376330643661222c227265736f7572636556657273696f6e223a2231222c2267656e65726174696f6e223a312c226372656174696f6e54696d657374616d70223a22323032352d30362d31355431353a30363a34305a227d2c2273706563223a7b2273697a65223a317d7d');
INSERT INTO changes ("revision", "at", "type", "kind", "namespace", "name", "uid", "host", "labels", "labels_before", "body") VALUES (2, 1750000000, 0, 'Thing', 'acme--lab', 'a', 'a7d766b1-9aa2-4ae4-bfa7-ea583aed903f', '', '', '', '\x7b2261706956657273696f6e223a2262657373656d65722e6465762f7631616c70686131222c226b696e64223a225468696e67222c226d65746164617461223a7b226e616d65223a2261222c226e616d657370616365223a2261636d652d2d6c6162222c22756964223a2261376437363662312d396161322d346165342d626661372d656135383361656439303366222c227265736f7572636556657273696f6e223a2232222c2267656e65726174696f6e223a312c226372656174696f6e54696d657374616d70223a22323032352d30362d31355431353a30363a34305a227d2c2273706563223a7b2273697a65223a317d7d');
INSERT INTO changes ("revision", "at", "type", "kind", "namespace", "name", "uid", "host", "labels", "labels_before", "body") VALUES (3, 1750000001, 1, 'Thing', 'acme--lab', 'a', 'a7d766b1-9aa2-4ae4-bfa7-ea583aed903f', '', '', '', '\x7b2261706956657273696f6e223a2262657373656d65722e6465762f7631616c70686131222c226b696e64223a225468696e67222c226d65746164617461223a7b226e616d65223a2261222c226e616d657370616365223a2261636d652d2d6c6162222c22756964223a2261376437363662312d396161322d346165342d626661372d656135383361656439303366222c227265736f7572636556657273696f6e223a2233222c2267656e65726174696f6e223a322c226372656174696f6e54696d657374616d70223a22323032352d30362d31355431353a30363a34305a227d2c2273706563223a7b2273697a65223a327d7d');
DELETE FROM counters;
INSERT INTO counters ("name", "value") VALUES ('floor', 0);
INSERT INTO counters ("name", "value") VALUES ('revision', 3);
INSERT INTO objects ("kind", "namespace", "name", "uid", "host", "generation", "revision", "updated", "labels", "body") VALUES ('Tenant', '', 'acme', 'a554ac2a-eaaf-445e-8776-20ac2b7c0d6a', '', 1, 1, 1750000000, '', '\x7b2261706956657273696f6e223a2262657373656d65722e6465762f7631616c70686131222c226b696e64223a2254656e616e74222c226d65746164617461223a7b226e616d65223a2261636d65222c22756964223a2261353534616332612d656161662d343435652d383737362d323061633262376330643661222c227265736f7572636556657273696f6e223a2231222c2267656e65726174696f6e223a312c226372656174696f6e54696d657374616d70223a22323032352d30362d31355431353a30363a34305a227d2c2273706563223a7b2273697a65223a317d7d');
INSERT INTO objects ("kind", "namespace", "name", "uid", "host", "generation", "revision", "updated", "labels", "body") VALUES ('Thing', 'acme--lab', 'a', 'a7d766b1-9aa2-4ae4-bfa7-ea583aed903f', '', 2, 3, 1750000001, '', '\x7b2261706956657273696f6e223a2262657373656d65722e6465762f7631616c70686131222c226b696e64223a225468696e67222c226d65746164617461223a7b226e616d65223a2261222c226e616d657370616365223a2261636d652d2d6c6162222c22756964223a2261376437363662312d396161322d346165342d626661372d656135383361656439303366222c227265736f7572636556657273696f6e223a2233222c2267656e65726174696f6e223a322c226372656174696f6e54696d657374616d70223a22323032352d30362d31355431353a30363a34305a227d2c2273706563223a7b2273697a65223a327d7d');
INSERT INTO sealed ("uid", "field", "ciphertext") VALUES ('a7d766b1-9aa2-4ae4-bfa7-ea583aed903f', 'password', '\xfc09c514ba3470c1b82601d5a3eb2144831cb04129be21257fc68a0af90a4ef6d5341ea2b42fde7e99');
INSERT INTO sealed ("uid", "field", "ciphertext") VALUES ('a7d766b1-9aa2-4ae4-bfa7-ea583aed903f', 'token', '\x49931a2b24d337ec6275b619c00275147e3b02059758e283be8592f35a1a6fcffc4a95303ddfdaa0d712');
COMMIT;
