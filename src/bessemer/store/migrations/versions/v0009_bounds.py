"""Bounds of keys, members, projects and tenants: what is used of each, and what gateways hold of it. It only adds.

What an older replica settles it does not count here; it states no bound, so there is none while it alone serves.
"""

from bessemer.store.migrations.steps import Steps

revision = "0009"
down_revision = "0008"

_BOUNDS = """CREATE TABLE {there}bounds (
    scope {text} NOT NULL,
    meter {text} NOT NULL,
    bound {whole},
    start {whole} NOT NULL,
    used {whole} NOT NULL,
    PRIMARY KEY (scope, meter),
    CHECK (used >= 0)
)
{end}
"""
_STATED = """CREATE TABLE {there}stated (
    project {text} NOT NULL,
    holder {text} NOT NULL,
    number {whole} NOT NULL,
    until {whole} NOT NULL,
    PRIMARY KEY (project, holder)
)
{end}
"""
_LEVELS = """CREATE TABLE {there}levels (
    project {text} NOT NULL,
    holder {text} NOT NULL,
    scope {text} NOT NULL,
    meter {text} NOT NULL,
    amount {whole} NOT NULL,
    PRIMARY KEY (project, holder, scope, meter),
    CHECK (amount > 0)
)
{end}
"""
_FILE = {"there": "", "text": "TEXT", "whole": "INTEGER", "end": "\n WITHOUT ROWID"}
_SERVER = {"there": "IF NOT EXISTS ", "text": 'TEXT COLLATE "C"', "whole": "BIGINT", "end": ""}

SQLITE = Steps(
    expand=(
        _BOUNDS.format(**_FILE),
        _STATED.format(**_FILE),
        _LEVELS.format(**_FILE),
        "CREATE INDEX levels_scope ON levels (scope, meter)",
    )
)
POSTGRESQL = Steps(
    expand=(
        _BOUNDS.format(**_SERVER),
        _STATED.format(**_SERVER),
        _LEVELS.format(**_SERVER),
        "CREATE INDEX IF NOT EXISTS levels_scope ON levels (scope, meter)",
    )
)
