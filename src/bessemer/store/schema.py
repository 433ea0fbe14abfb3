"""The tables. Two for objects and their history, one each for what two writers could both take, or what never changes.

Invariants: ``changes.revision`` is dense and in order of commit; ``ledger`` and ``audit`` refuse UPDATE and DELETE by
trigger; a device row names at most one claim; no counter is negative. Types are plain integers (of 64 bits), texts (in
the order of their bytes) and bytes, so that statements compiled from here run on a bare driver with no conversion.

This is not where statements live: each module keeps its own beside its operation.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    literal_column,
    text,
)
from sqlalchemy.sql.elements import ColumnElement

METADATA = MetaData()
_INTEGER = Integer().with_variant(BigInteger(), "postgresql")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def of(column: Column[Any]) -> ColumnElement[bool]:
    """``column = :of_NAME``: a condition whose parameter cannot be mistaken for a value to be set."""
    return column == bindparam(f"of_{column.name}")


def filled(column: ColumnElement[str]) -> ColumnElement[bool]:
    """``column <> ''`` and `is_kind` ``kind = 'KIND'``, as partial indices have them: written out, because a statement
    whose parameter decides whether such an index may be used is compiled anew each time that it is bound."""
    return column != literal_column("''")


def is_kind(column: ColumnElement[str], kind: str) -> ColumnElement[bool]:
    """See `filled`. ``kind`` is a word of ours."""
    return column == literal_column(f"'{kind}'")


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, _TEXT, nullable=False, **options)


def _int(name: str, **options: Any) -> Column[int]:
    return Column(name, _INTEGER, nullable=False, **options)


def _some(name: str, *columns: str, where: str, **options: Any) -> Index:
    """An index of some rows."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where), **options)


counters = Table(
    "counters",
    METADATA,
    _text("name", primary_key=True),
    _int("value"),
    sqlite_with_rowid=False,
)
"""``revision``: the last one given. ``floor``: history reaches back to the changes after it. ``audit_base``: the last
row of the trail that is archived; ``audit_floor``: the last that was gone before those were dropped."""

objects = Table(
    "objects",
    METADATA,
    _text("kind", primary_key=True),
    _text("namespace", primary_key=True),
    _text("name", primary_key=True),
    _text("uid"),
    _text("host"),
    _int("generation"),
    _int("revision"),
    _int("updated"),
    _text("labels"),
    Column("body", LargeBinary, nullable=False),
    Index("objects_uid", "uid", unique=True),
    _some("objects_host", "kind", "host", "namespace", "name", where="host <> ''"),
    _some("objects_events", "updated", where="kind = 'Event'"),
    sqlite_with_rowid=False,
)

changes = Table(
    "changes",
    METADATA,
    _int("revision", primary_key=True, autoincrement=False),
    _int("at"),
    _int("type"),
    _text("kind"),
    _text("namespace"),
    _text("name"),
    _text("uid"),
    _text("host"),
    _text("labels"),
    _text("labels_before"),
    Column("body", LargeBinary, nullable=False),
    _some("changes_host", "kind", "host", "revision", where="host <> ''"),
)

labels = Table(
    "labels",
    METADATA,
    _text("kind", primary_key=True),
    _text("label", primary_key=True),
    _text("value", primary_key=True),
    _text("namespace", primary_key=True),
    _text("name", primary_key=True),
    sqlite_with_rowid=False,
)
"""The labels of bodies, the other way round: a selector reads what it selects and no more."""

dependents = Table(
    "dependents",
    METADATA,
    _text("owner", primary_key=True),
    _text("uid", primary_key=True),
    # An older release that still writes says nothing of it: 2 is not known, and taken for 1 until it is.
    _int("blocks", server_default=text("2")),
    Index("dependents_uid", "uid"),
    _some("dependents_blocks", "owner", where="blocks > 0"),
    sqlite_with_rowid=False,
)
"""The owner references of bodies (and which object an Event is about), the other way round. ``blocks`` is 1 where an
owner that is deleted in the foreground waits for the object."""

cascades = Table(
    "cascades",
    METADATA,
    _text("uid", primary_key=True),
    _text("upto"),
    _text("writer"),
    sqlite_with_rowid=False,
)
"""Objects that are marked, and whose dependents go, or are left behind, before them: up to which uid these were seen
to (all of them: `cascade.ALL`), and who asked for it."""

hosts = Table(
    "hosts",
    METADATA,
    _text("host", primary_key=True),
    _int("schedulable"),
    sqlite_with_rowid=False,
)

numa = Table(
    "numa",
    METADATA,
    _text("host", primary_key=True),
    _int("node", primary_key=True, autoincrement=False),
    _int("milli_cores"),
    _int("milli_cores_used"),
    _int("memory_bytes"),
    _int("memory_bytes_used"),
    CheckConstraint("milli_cores_used >= 0 AND memory_bytes_used >= 0"),
    sqlite_with_rowid=False,
)
"""A node may be used beyond what it has: when its totals shrink under what runs. `take` never passes them."""

devices = Table(
    "devices",
    METADATA,
    _text("host", primary_key=True),
    _text("device", primary_key=True),
    _text("model"),
    _text("kind"),
    _int("healthy"),
    _text("claim"),
    _int("lost"),
    _some("devices_claim", "claim", where="claim <> ''"),
    CheckConstraint("lost = 0 OR claim <> ''"),
    sqlite_with_rowid=False,
)

partitions = Table(
    "partitions",
    METADATA,
    _text("host", primary_key=True),
    _text("model", primary_key=True),
    _text("body"),
    sqlite_with_rowid=False,
)
"""Into what a host's devices of a model can be cut, as its agent said (JSON of `core.slices.Partitioning`)."""

shares = Table(
    "shares",
    METADATA,
    _text("host", primary_key=True),
    _text("device", primary_key=True),
    _text("claim", primary_key=True),
    _int("milli"),
    _text("profile"),
    _int("start"),
    Index("shares_claim", "claim"),
    CheckConstraint("milli > 0 AND milli <= 1000"),
    sqlite_with_rowid=False,
)
"""What claims have of devices that they have in part: thousandths, and where it is an instance its ``profile`` and the
slice with which it begins. The device's row names no claim then, but `sharing.SHARED`, while there is one."""

quota = Table(
    "quota",
    METADATA,
    _text("scope", primary_key=True),
    _text("meter", primary_key=True),
    _int("used"),
    Column("bound", _INTEGER),
    CheckConstraint("used >= 0"),
    sqlite_with_rowid=False,
)

windows = Table(
    "windows",
    METADATA,
    _text("scope", primary_key=True),
    _text("meter", primary_key=True),
    _int("start"),
    _int("used"),
    CheckConstraint("used >= 0"),
    sqlite_with_rowid=False,
)
"""What was given out of a meter that is counted within a window, in the window that began at ``start`` (epoch)."""

looks = Table(
    "looks",
    METADATA,
    _text("scope", primary_key=True),
    _int("upto"),
    sqlite_with_rowid=False,
)
"""Of each scope whose money is bounded and counted: up to which row the ledger was looked at."""

holds = Table(
    "holds",
    METADATA,
    _text("project", primary_key=True),
    _text("holder", primary_key=True),
    _text("tenant"),
    _int("micro"),
    _int("number"),
    _int("until"),
    CheckConstraint("micro >= 0"),
    Index("holds_tenant", "tenant"),
    sqlite_with_rowid=False,
)
"""The money of a project that a gateway holds in all, by its statement of that ``number``, until then (epoch)."""

walls = Table(
    "walls",
    METADATA,
    _text("what", primary_key=True),
    _text("value", primary_key=True),
    _text("tenant", primary_key=True),
    Index("walls_tenant", "tenant", "what"),
    sqlite_with_rowid=False,
)
"""What of a Tenant is looked at wherever something of it is made or lands, the other way round: ``state`` where it is
not active, ``site`` for each, ``only`` where it is kept to its own hosts, and these: ``host`` by name, ``labels``."""

ledger = Table(
    "ledger",
    METADATA,
    _int("id", primary_key=True),
    _int("at"),
    _text("kind"),
    _text("tenant"),
    _text("project"),
    _text("tenant_uid"),
    _text("project_uid"),
    _text("workload_kind"),
    _text("workload_name"),
    _text("workload_uid"),
    _text("claim_uid"),
    _text("host"),
    _int("fake"),
    Column("state", _TEXT),
    _text("flavor"),
    _text("device_model"),
    _int("devices"),
    _int("milli_cores"),
    _int("memory_bytes"),
    _text("model"),
    _text("api_key"),
    _int("requests"),
    _int("input_tokens"),
    _int("cached_input_tokens"),
    _int("output_tokens"),
    Column("corrects", _INTEGER),
    # An older release that still writes holds nothing in part.
    _int("device_milli", server_default=text("1000")),
    _some("ledger_claim", "claim_uid", "id", where="claim_uid <> ''"),
    Index("ledger_workload", "workload_uid", "id"),
    Index("ledger_project", "project_uid", "kind", "at"),
    Index("ledger_tenant", "tenant_uid", "project_uid"),
    _some("ledger_once", "claim_uid", "kind", unique=True, where="kind IN ('open', 'close')"),
)

spools = Table(
    "spools",
    METADATA,
    _text("spool_uid", primary_key=True),
    _text("gateway_uid"),
    _int("sequence"),
    sqlite_with_rowid=False,
)
"""A spool's uid is random and stands in its file: it alone says what is settled. Who sent last is only noted."""

leases = Table(
    "leases",
    METADATA,
    _text("name", primary_key=True),
    _text("holder"),
    _int("fence"),
    Column("expires_at", Float, nullable=False),
    Column("ttl", Float, nullable=False),
    _text("note"),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    METADATA,
    _int("id", primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    _text("writer"),
    _text("verb"),
    _text("key"),
    _text("uid"),
    _int("allowed"),
    _text("reason"),
    _text("request_id"),
    _text("source"),
    _text("digest"),
    # An older release that still writes says nothing of these.
    _text("tenant", server_default=""),
    _text("change", server_default=""),
    _some("audit_tenant", "tenant", "id", where="tenant <> ''"),
)

audit_heads = Table(
    "audit_heads",
    METADATA,
    _text("kind", primary_key=True),
    _int("id", primary_key=True, autoincrement=False),
    _text("digest"),
    Column("at", Float, nullable=False),
    _text("key"),
    _text("signature"),
    sqlite_with_rowid=False,
)
"""Signed: which row of ``audit`` had which digest. They are kept outside, too."""

sealed = Table(
    "sealed",
    METADATA,
    _text("uid", primary_key=True),
    _text("field", primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

data_keys = Table(
    "data_keys",
    METADATA,
    _text("id", primary_key=True),
    _text("kek"),
    Column("wrapped", LargeBinary, nullable=False),
    _int("made"),
    sqlite_with_rowid=False,
)
"""The keys under which values are sealed, each wrapped by the key-encryption key that ``kek`` names."""

APPEND_ONLY = ("ledger", "audit")
"""Tables whose rows are final; triggers say so to whoever writes SQL by hand. Rows of ``audit`` may go once they were
archived: up to the counter ``audit_base``."""
