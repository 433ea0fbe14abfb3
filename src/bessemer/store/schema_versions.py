"""From an older file to the present schema.

A new file gets the present schema at once and the name of its version; an older one is brought up by the migrations,
whose machinery is imported only then. A test proves that both ways end in the same tables.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from bessemer.core.errors import Unavailable
from bessemer.store.schema import APPEND_ONLY, METADATA
from bessemer.store.sqlite import Session

HEAD = "0002"
"""The version of the present schema: the last module in ``migrations/versions``."""


def ddl() -> str:
    """The present schema as a script."""
    dialect = sqlite.dialect()
    statements = []
    for table in METADATA.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes]
    for name in APPEND_ONLY:
        statements += [
            f"CREATE TRIGGER {name}_no_{act.lower()} BEFORE {act} ON {name} "
            f"BEGIN SELECT RAISE(ABORT, 'rows of {name} are final'); END"
            for act in ("UPDATE", "DELETE")
        ]
    statements += [
        "INSERT INTO counters VALUES ('revision', 0)",
        "INSERT INTO counters VALUES ('floor', 0)",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        f"INSERT INTO alembic_version VALUES ('{HEAD}')",
    ]
    return ";\n".join(["BEGIN", *statements, "COMMIT"]) + ";"


def prepare(session: Session, path: Path) -> None:
    """Make or migrate. Raises Unavailable for the file of a newer release."""
    version = session.version()
    if version is None:
        session.script(ddl())
    elif version != HEAD:
        from bessemer.store.migrations import upgrade  # not paid for by those who need none

        if not upgrade(path, version):
            raise Unavailable(f"{path} was written by a newer release (schema {version}, here {HEAD})")
