"""The tables of what whoever asks endpoints may, and of what gateways hold of it. They are found in `schema`."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table

from bessemer.store.columns import INTEGER, METADATA, string, whole

bounds = Table(
    "bounds",
    METADATA,
    string("scope", primary_key=True),
    string("meter", primary_key=True),
    Column("bound", INTEGER),
    whole("start"),
    whole("used"),
    CheckConstraint("used >= 0"),
    sqlite_with_rowid=False,
)
"""What a key, a member, a project or a tenant may ask of endpoints (`core.bounds`), and what of it was given out or
spent in the period that began at ``start`` (epoch). One whose bound was taken away goes on being counted."""

stated = Table(
    "stated",
    METADATA,
    string("project", primary_key=True),
    string("holder", primary_key=True),
    whole("number"),
    whole("until"),
    sqlite_with_rowid=False,
)
"""The last statement of a gateway about a project's bounds; what it holds is held until then (epoch)."""

levels = Table(
    "levels",
    METADATA,
    string("project", primary_key=True),
    string("holder", primary_key=True),
    string("scope", primary_key=True),
    string("meter", primary_key=True),
    whole("amount"),
    Index("levels_scope", "scope", "meter"),
    CheckConstraint("amount > 0"),
    sqlite_with_rowid=False,
)
"""How much of a bound a gateway holds in all, for requests of a project, by its statements."""
