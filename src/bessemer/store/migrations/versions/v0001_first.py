"""The schema of the first release, as it was made then. It never changes; see `schema` for the present one."""

from alembic import op

revision = "0001"
down_revision = None

_DDL = """
CREATE TABLE audit (
    id INTEGER NOT NULL,
    at FLOAT NOT NULL,
    writer TEXT NOT NULL,
    verb TEXT NOT NULL,
    "key" TEXT NOT NULL,
    uid TEXT NOT NULL,
    allowed INTEGER NOT NULL,
    reason TEXT NOT NULL,
    request_id TEXT NOT NULL,
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (id)
)
;
CREATE TABLE changes (
    revision INTEGER NOT NULL,
    at INTEGER NOT NULL,
    type INTEGER NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    host TEXT NOT NULL,
    labels TEXT NOT NULL,
    labels_before TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (revision)
)
;
CREATE INDEX changes_host ON changes (kind, host, revision) WHERE host <> '';
CREATE TABLE counters (
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (name)
)
 WITHOUT ROWID
;
CREATE TABLE dependents (
    owner TEXT NOT NULL,
    uid TEXT NOT NULL,
    PRIMARY KEY (owner, uid)
)
 WITHOUT ROWID
;
CREATE INDEX dependents_uid ON dependents (uid);
CREATE TABLE devices (
    host TEXT NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    kind TEXT NOT NULL,
    healthy INTEGER NOT NULL,
    claim TEXT NOT NULL,
    lost INTEGER NOT NULL,
    PRIMARY KEY (host, device),
    CHECK (lost = 0 OR claim <> '')
)
 WITHOUT ROWID
;
CREATE INDEX devices_claim ON devices (claim) WHERE claim <> '';
CREATE TABLE hosts (
    host TEXT NOT NULL,
    schedulable INTEGER NOT NULL,
    PRIMARY KEY (host)
)
 WITHOUT ROWID
;
CREATE TABLE labels (
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (kind, label, value, namespace, name)
)
 WITHOUT ROWID
;
CREATE TABLE leases (
    name TEXT NOT NULL,
    holder TEXT NOT NULL,
    fence INTEGER NOT NULL,
    expires_at FLOAT NOT NULL,
    ttl FLOAT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (name)
)
 WITHOUT ROWID
;
CREATE TABLE ledger (
    id INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    project TEXT NOT NULL,
    workload_kind TEXT NOT NULL,
    workload_name TEXT NOT NULL,
    workload_uid TEXT NOT NULL,
    claim_uid TEXT NOT NULL,
    host TEXT NOT NULL,
    fake INTEGER NOT NULL,
    state TEXT,
    flavor TEXT NOT NULL,
    device_model TEXT NOT NULL,
    devices INTEGER NOT NULL,
    milli_cores INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    model TEXT NOT NULL,
    api_key TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    corrects INTEGER,
    PRIMARY KEY (id)
)
;
CREATE INDEX ledger_claim ON ledger (claim_uid, id) WHERE claim_uid <> '';
CREATE UNIQUE INDEX ledger_once ON ledger (claim_uid, kind) WHERE kind IN ('open', 'close');
CREATE INDEX ledger_project ON ledger (project, id);
CREATE INDEX ledger_tenant ON ledger (tenant, id);
CREATE INDEX ledger_workload ON ledger (workload_uid, id);
CREATE TABLE numa (
    host TEXT NOT NULL,
    node INTEGER NOT NULL,
    milli_cores INTEGER NOT NULL,
    milli_cores_used INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    memory_bytes_used INTEGER NOT NULL,
    PRIMARY KEY (host, node),
    CHECK (milli_cores_used >= 0 AND memory_bytes_used >= 0)
)
 WITHOUT ROWID
;
CREATE TABLE objects (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    host TEXT NOT NULL,
    generation INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
)
 WITHOUT ROWID
;
CREATE INDEX objects_events ON objects (updated) WHERE kind = 'Event';
CREATE INDEX objects_host ON objects (kind, host, namespace, name) WHERE host <> '';
CREATE UNIQUE INDEX objects_uid ON objects (uid);
CREATE TABLE quota (
    scope TEXT NOT NULL,
    meter TEXT NOT NULL,
    used INTEGER NOT NULL,
    bound INTEGER,
    PRIMARY KEY (scope, meter),
    CHECK (used >= 0)
)
 WITHOUT ROWID
;
CREATE TABLE sealed (
    uid TEXT NOT NULL,
    field TEXT NOT NULL,
    ciphertext BLOB NOT NULL,
    PRIMARY KEY (uid, field)
)
 WITHOUT ROWID
;
CREATE TABLE spools (
    gateway_uid TEXT NOT NULL,
    spool_uid TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (gateway_uid, spool_uid)
)
 WITHOUT ROWID
;
CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'rows of ledger are final'); END;
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'rows of ledger are final'); END;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'rows of audit are final'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'rows of audit are final'); END;
INSERT INTO counters VALUES ('revision', 0);
INSERT INTO counters VALUES ('floor', 0);
"""


def upgrade() -> None:
    """Make every table."""
    for statement in _DDL.strip().removesuffix(";").split(";\n"):
        # A trigger has a semicolon of its own, which is not at the end of a line.
        op.get_bind().exec_driver_sql(statement)
