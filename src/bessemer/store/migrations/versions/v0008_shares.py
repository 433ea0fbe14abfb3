"""Devices in part: what claims have of which, into what devices can be cut, and what of each a row of the ledger is.

What an older replica would not understand is a device that several claims hold: so none is shared before this schema is
carried alone (`sharing`). Until then it only adds.
"""

from bessemer.store.migrations.steps import Steps

revision = "0008"
down_revision = "0007"

_PARTITIONS = """CREATE TABLE {there}partitions (
    host {text} NOT NULL,
    model {text} NOT NULL,
    body {text} NOT NULL,
    PRIMARY KEY (host, model)
)
{end}
"""
_SHARES = """CREATE TABLE {there}shares (
    host {text} NOT NULL,
    device {text} NOT NULL,
    claim {text} NOT NULL,
    milli {whole} NOT NULL,
    profile {text} NOT NULL,
    start {whole} NOT NULL,
    PRIMARY KEY (host, device, claim),
    CHECK (milli > 0 AND milli <= 1000)
)
{end}
"""
_FILE = {"there": "", "text": "TEXT", "whole": "INTEGER", "end": "\n WITHOUT ROWID"}
_SERVER = {"there": "IF NOT EXISTS ", "text": 'TEXT COLLATE "C"', "whole": "BIGINT", "end": ""}

SQLITE = Steps(
    expand=(
        _PARTITIONS.format(**_FILE),
        _SHARES.format(**_FILE),
        "CREATE INDEX shares_claim ON shares (claim)",
        "ALTER TABLE ledger ADD COLUMN device_milli INTEGER DEFAULT 1000 NOT NULL",
    )
)
POSTGRESQL = Steps(
    expand=(
        _PARTITIONS.format(**_SERVER),
        _SHARES.format(**_SERVER),
        "CREATE INDEX IF NOT EXISTS shares_claim ON shares (claim)",
        "ALTER TABLE ledger ADD COLUMN IF NOT EXISTS device_milli BIGINT DEFAULT 1000 NOT NULL",
    )
)
