"""What gateways hold of money, and up to where the ledger was looked at; a tenant's projects by its ledger."""

from bessemer.store.migrations.steps import Steps

revision = "0006"
down_revision = "0005"

_LOOKS = """CREATE TABLE {there}looks (
    scope {text} NOT NULL,
    upto {whole} NOT NULL,
    PRIMARY KEY (scope)
)
{end}
"""
_HOLDS = """CREATE TABLE {there}holds (
    project {text} NOT NULL,
    holder {text} NOT NULL,
    tenant {text} NOT NULL,
    micro {whole} NOT NULL,
    number {whole} NOT NULL,
    until {whole} NOT NULL,
    PRIMARY KEY (project, holder),
    CHECK (micro >= 0)
)
{end}
"""
_FILE = {"there": "", "text": "TEXT", "whole": "INTEGER", "end": "\n WITHOUT ROWID"}
_SERVER = {"there": "IF NOT EXISTS ", "text": 'TEXT COLLATE "C"', "whole": "BIGINT", "end": ""}

SQLITE = Steps(
    expand=(
        _LOOKS.format(**_FILE),
        _HOLDS.format(**_FILE),
        "CREATE INDEX holds_tenant ON holds (tenant)",
        "CREATE INDEX ledger_tenant ON ledger (tenant_uid, project_uid)",
    )
)
POSTGRESQL = Steps(
    expand=(
        _LOOKS.format(**_SERVER),
        _HOLDS.format(**_SERVER),
        "CREATE INDEX IF NOT EXISTS holds_tenant ON holds (tenant)",
        "DROP INDEX CONCURRENTLY IF EXISTS ledger_tenant",  # one that was stopped amid its making is of no use
        "CREATE INDEX CONCURRENTLY ledger_tenant ON ledger (tenant_uid, project_uid)",
    )
)
