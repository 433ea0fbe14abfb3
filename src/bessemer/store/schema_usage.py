"""The tables of how endpoints answered, and of what their engines counted. They are found in `schema`."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Table

from bessemer.core import served as sums
from bessemer.store.columns import METADATA, string, whole

served = Table(
    "served",
    METADATA,
    string("project_uid", primary_key=True),
    whole("step", primary_key=True, autoincrement=False),
    whole("start", primary_key=True, autoincrement=False),
    string("endpoint_uid", primary_key=True),
    string("api_key", primary_key=True),
    string("owner", primary_key=True),
    string("model", primary_key=True),
    string("endpoint"),
    *(whole(name) for name in sums.COLUMNS),
    sqlite_with_rowid=False,
)
"""What was answered in ``step`` seconds from ``start`` (epoch) on: sums and counts of `core.served`. Requests that paid
nothing are not among them."""

answered = Table(
    "answered",
    METADATA,
    string("project_uid", primary_key=True),
    string("endpoint_uid", primary_key=True),
    string("replica", primary_key=True),
    string("how", primary_key=True),
    string("endpoint"),
    whole("requests"),
    whole("input_tokens"),
    whole("cached_input_tokens"),
    whole("output_tokens"),
    whole("since"),
    whole("until"),
    sqlite_with_rowid=False,
)
"""What was billed of each replica (the uid of its claim), by how answers ended ("" as they should), first and last at
these times (epoch)."""

counted = Table(
    "counted",
    METADATA,
    string("project_uid", primary_key=True),
    string("claim_uid", primary_key=True),
    string("endpoint_uid"),
    string("endpoint"),
    string("host"),
    whole("at"),
    string("said"),
    CheckConstraint("claim_uid <> ''"),
    sqlite_with_rowid=False,
)
"""What the engine of a replica that is gone had counted, as its host's agent said last (JSON): see
`kinds.inference.endpoint`."""
