"""How endpoints answered, what was billed of each replica, and what engines counted. It only adds.

What an older replica settles is in the ledger, and not here.
"""

from bessemer.store.migrations.steps import Steps

revision = "0010"
down_revision = "0009"

_SUMS = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cancelled",
    "cut",
    "killed",
    "first_ms",
    "between_ms",
    "between_tokens",
    *(f"first_{number:02d}" for number in range(25)),
    *(f"between_{number:02d}" for number in range(25)),
)
_SERVED = """CREATE TABLE {there}served (
    project_uid {text} NOT NULL,
    step {whole} NOT NULL,
    start {whole} NOT NULL,
    endpoint_uid {text} NOT NULL,
    api_key {text} NOT NULL,
    owner {text} NOT NULL,
    model {text} NOT NULL,
    endpoint {text} NOT NULL,
    {sums},
    PRIMARY KEY (project_uid, step, start, endpoint_uid, api_key, owner, model)
)
{end}
"""
_ANSWERED = """CREATE TABLE {there}answered (
    project_uid {text} NOT NULL,
    endpoint_uid {text} NOT NULL,
    replica {text} NOT NULL,
    how {text} NOT NULL,
    endpoint {text} NOT NULL,
    requests {whole} NOT NULL,
    input_tokens {whole} NOT NULL,
    cached_input_tokens {whole} NOT NULL,
    output_tokens {whole} NOT NULL,
    since {whole} NOT NULL,
    until {whole} NOT NULL,
    PRIMARY KEY (project_uid, endpoint_uid, replica, how)
)
{end}
"""
_COUNTED = """CREATE TABLE {there}counted (
    project_uid {text} NOT NULL,
    claim_uid {text} NOT NULL,
    endpoint_uid {text} NOT NULL,
    endpoint {text} NOT NULL,
    host {text} NOT NULL,
    at {whole} NOT NULL,
    said {text} NOT NULL,
    PRIMARY KEY (project_uid, claim_uid),
    CHECK (claim_uid <> '')
)
{end}
"""
_FILE = {"there": "", "text": "TEXT", "whole": "INTEGER", "end": "\n WITHOUT ROWID"}
_SERVER = {"there": "IF NOT EXISTS ", "text": 'TEXT COLLATE "C"', "whole": "BIGINT", "end": ""}


def _tables(said: dict[str, str]) -> tuple[str, ...]:
    sums = ",\n    ".join(f"{name} {said['whole']} NOT NULL" for name in _SUMS)
    return tuple(table.format(**said, sums=sums) for table in (_SERVED, _ANSWERED, _COUNTED))


SQLITE = Steps(expand=_tables(_FILE))
POSTGRESQL = Steps(expand=_tables(_SERVER))
