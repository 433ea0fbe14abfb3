"""A row of the trail says whose its object is and what it changed; heads of the trail; data keys of sealed values.

Rows that are there keep their digests, and have no tenant: nobody but auditors is shown them. On a server, replicas of
the release before go on meanwhile: what they leave out has a default, and they name no new table.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

_FINAL = "BEGIN SELECT RAISE(ABORT, 'rows of audit are final'); END"
_SQLITE = (
    "DROP TRIGGER audit_no_update",
    "DROP TRIGGER audit_no_delete",
    "ALTER TABLE audit RENAME TO audit_0002",
    """CREATE TABLE audit (
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
    tenant TEXT DEFAULT '' NOT NULL,
    change TEXT DEFAULT '' NOT NULL,
    PRIMARY KEY (id)
)
""",
    """INSERT INTO audit SELECT id, at, writer, verb, "key", uid, allowed, reason, request_id, source, digest, '', ''
FROM audit_0002 ORDER BY id""",
    "DROP TABLE audit_0002",
    f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit {_FINAL}",
    "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit "
    f"WHEN old.id > coalesce((SELECT value FROM counters WHERE name = 'audit_base'), 0) {_FINAL}",
    """CREATE TABLE audit_heads (
    kind TEXT NOT NULL,
    id INTEGER NOT NULL,
    digest TEXT NOT NULL,
    at FLOAT NOT NULL,
    "key" TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (kind, id)
)
 WITHOUT ROWID
""",
    """CREATE TABLE data_keys (
    id TEXT NOT NULL,
    kek TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    made INTEGER NOT NULL,
    PRIMARY KEY (id)
)
 WITHOUT ROWID
""",
)
# The driver reads %% as one.
_POSTGRESQL = (
    "ALTER TABLE audit ADD COLUMN tenant TEXT COLLATE \"C\" DEFAULT '' NOT NULL, "
    "ADD COLUMN change TEXT COLLATE \"C\" DEFAULT '' NOT NULL",
    "DROP TRIGGER audit_final ON audit",
    "CREATE TRIGGER audit_final BEFORE UPDATE OR TRUNCATE ON audit EXECUTE FUNCTION refuse_change()",
    """CREATE FUNCTION refuse_forgetting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.id > coalesce((SELECT value FROM counters WHERE name = 'audit_base'), 0) THEN
        RAISE EXCEPTION 'rows of %% are final', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END $$""",
    "CREATE TRIGGER audit_kept BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_forgetting()",
    """CREATE TABLE audit_heads (
    kind TEXT COLLATE "C" NOT NULL,
    id BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    at FLOAT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    signature TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, id)
)""",
    """CREATE TABLE data_keys (
    id TEXT COLLATE "C" NOT NULL,
    kek TEXT COLLATE "C" NOT NULL,
    wrapped BYTEA NOT NULL,
    made BIGINT NOT NULL,
    PRIMARY KEY (id)
)""",
)
_BOTH = (
    "CREATE INDEX audit_tenant ON audit (tenant, id) WHERE tenant <> ''",
    "INSERT INTO counters VALUES ('audit_base', 0)",
)


def upgrade() -> None:
    """Make the audit table anew in a file, where no column can be added in its place; widen it on a server."""
    connection = op.get_bind()
    own = _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL
    for statement in (*own, *_BOTH):
        connection.exec_driver_sql(statement)
