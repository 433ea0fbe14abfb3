"""A spool is known by its own uid; a ledger row says by uid whose it is, and is found by whose it is and when.

A name may be given again, so the rows of a workload are taken to be of the tenant and project that bear its names now
only where those were there before its first row. What is left is of nobody who is there, and on nobody's invoice.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

_OWNER = """COALESCE((
    SELECT uid FROM objects
    WHERE objects.kind = '{kind}' AND objects.namespace = '' AND objects.name = old.{column}
    AND CAST(strftime('%s', json_extract(CAST(body AS TEXT), '$.metadata.creationTimestamp')) AS INTEGER) <= began.at
), '')"""

_STATEMENTS = (
    "ALTER TABLE spools RENAME TO spools_0001",
    """CREATE TABLE spools (
    spool_uid TEXT NOT NULL,
    gateway_uid TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (spool_uid)
)
 WITHOUT ROWID
""",
    # What was settled under any name of the gateway is settled.
    "INSERT INTO spools SELECT spool_uid, max(gateway_uid), max(sequence) FROM spools_0001 GROUP BY spool_uid",
    "DROP TABLE spools_0001",
    "DROP TRIGGER ledger_no_update",
    "DROP TRIGGER ledger_no_delete",
    """CREATE TEMPORARY TABLE began AS SELECT workload_uid AS uid, min(at) AS at FROM ledger GROUP BY workload_uid""",
    "CREATE UNIQUE INDEX began_uid ON began (uid)",
    "DROP INDEX ledger_claim",
    "DROP INDEX ledger_once",
    "DROP INDEX ledger_project",
    "DROP INDEX ledger_tenant",
    "DROP INDEX ledger_workload",
    "ALTER TABLE ledger RENAME TO ledger_0001",
    """CREATE TABLE ledger (
    id INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    project TEXT NOT NULL,
    tenant_uid TEXT NOT NULL,
    project_uid TEXT NOT NULL,
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
""",
    f"""INSERT INTO ledger SELECT id, old.at, kind, tenant, project,
    {_OWNER.format(kind="Tenant", column="tenant")}, {_OWNER.format(kind="Project", column="project")},
    workload_kind, workload_name, workload_uid, claim_uid, host, fake, state, flavor, device_model, devices,
    milli_cores, memory_bytes, model, api_key, requests, input_tokens, cached_input_tokens, output_tokens, corrects
FROM ledger_0001 AS old JOIN began ON began.uid = old.workload_uid ORDER BY id""",
    "DROP TABLE ledger_0001",
    "DROP TABLE began",
    "CREATE INDEX ledger_claim ON ledger (claim_uid, id) WHERE claim_uid <> ''",
    "CREATE UNIQUE INDEX ledger_once ON ledger (claim_uid, kind) WHERE kind IN ('open', 'close')",
    "CREATE INDEX ledger_project ON ledger (project_uid, kind, at)",
    "CREATE INDEX ledger_workload ON ledger (workload_uid, id)",
    *(
        f"CREATE TRIGGER ledger_no_{act.lower()} BEFORE {act} ON ledger "
        "BEGIN SELECT RAISE(ABORT, 'rows of ledger are final'); END"
        for act in ("UPDATE", "DELETE")
    ),
)


def upgrade() -> None:
    """Make both tables anew; rows keep their ids."""
    for statement in _STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
