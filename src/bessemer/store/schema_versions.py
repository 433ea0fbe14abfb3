"""The present schema of a new file or database, and an older file's way to it.

A new one gets the present schema at once and the name of its version; an older one is brought up by the migrations,
whose machinery is imported only then: a database by `expanding`. A test proves that all ways end in the same tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from bessemer.core.errors import Unavailable
from bessemer.store.schema import APPEND_ONLY, METADATA

HEAD = "0010"
"""The version of the present schema: the last module in ``migrations/versions``."""

_NEWER = "{} was written by a newer release (schema {}, here {})"
_MAY_GO = ("audit", "DELETE")
_ARCHIVED = "WHEN old.id > coalesce((SELECT value FROM counters WHERE name = 'audit_base'), 0) "
_POSTGRES_TRIGGERS = (
    """CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'rows of % are final', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$""",
    "CREATE TRIGGER ledger_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER audit_final BEFORE UPDATE OR TRUNCATE ON audit EXECUTE FUNCTION refuse_change()",
    """CREATE FUNCTION refuse_forgetting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.id > coalesce((SELECT value FROM counters WHERE name = 'audit_base'), 0) THEN
        RAISE EXCEPTION 'rows of % are final', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END $$""",
    "CREATE TRIGGER audit_kept BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_forgetting()",
    # Whoever moves the counter says so at the commit, to every process that has watches.
    """CREATE FUNCTION tell_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('bessemer', '');
    RETURN NULL;
END $$""",
    "CREATE TRIGGER counters_tell AFTER UPDATE ON counters EXECUTE FUNCTION tell_change()",
    # Who commits says what he is (`beside`): he may where his schema is carried, and he counts all that is counted.
    """CREATE FUNCTION refuse_older() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (
        SELECT FROM counters
        WHERE (name = 'carries' AND value > coalesce(nullif(split_part(NEW.note, ' ', 1), '')::BIGINT, 4))
        OR (name LIKE 'meter/%' AND value > 0 AND NEW.note <> '' AND position(substr(name, 6) || '/' IN NEW.note) = 0)
    ) THEN
        RAISE EXCEPTION 'the database no longer carries writers like this: %', NEW.note USING ERRCODE = 'BE001';
    END IF;
    RETURN NEW;
END $$""",
    "CREATE TRIGGER leases_older BEFORE INSERT ON leases FOR EACH ROW WHEN (NEW.name LIKE 'writer/%') "
    "EXECUTE FUNCTION refuse_older()",
)


class Makes(Protocol):
    """What `prepare` asks of a connection."""

    def script(self, sql: str) -> None:
        """Several statements of DDL."""

    def version(self) -> str | None:
        """The schema's version; None where there is none yet."""


def ddl() -> str:
    """The present schema of a file, as a script."""
    triggers = (
        f"CREATE TRIGGER {name}_no_{act.lower()} BEFORE {act} ON {name} {_ARCHIVED if (name, act) == _MAY_GO else ''}"
        f"BEGIN SELECT RAISE(ABORT, 'rows of {name} are final'); END"
        for name in APPEND_ONLY
        for act in ("UPDATE", "DELETE")
    )
    return _script([*_tables_of_file(), *triggers])


def ddl_of_database() -> str:
    """The present schema of a database, as a script."""
    from sqlalchemy.dialects.postgresql.base import PGDialect  # not paid for by files

    dialect: Dialect = PGDialect()  # type: ignore[no-untyped-call]
    return _script([*_tables(dialect), *_POSTGRES_TRIGGERS])


@functools.cache
def _tables_of_file() -> tuple[str, ...]:
    return tuple(_tables(sqlite.dialect()))


def _tables(dialect: Dialect) -> Iterator[str]:
    for table in METADATA.sorted_tables:
        yield str(CreateTable(table).compile(dialect=dialect))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield str(CreateIndex(index).compile(dialect=dialect))


def _script(statements: list[str]) -> str:
    rows = [
        "INSERT INTO counters VALUES ('revision', 0)",
        "INSERT INTO counters VALUES ('floor', 0)",
        "INSERT INTO counters VALUES ('audit_base', 0)",
        f"INSERT INTO counters VALUES ('carries', {int(HEAD)})",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        f"INSERT INTO alembic_version VALUES ('{HEAD}')",
    ]
    return ";\n".join(["BEGIN", *statements, *rows, "COMMIT"]) + ";"


def prepare(session: Makes, path: Path) -> None:
    """Make or migrate. Raises Unavailable for the file of a newer release."""
    version = session.version()
    if version is None:
        session.script(ddl())
    elif version != HEAD:
        from bessemer.store.migrations import upgrade  # not paid for by those who need none

        if not upgrade(path, version):
            raise Unavailable(_NEWER.format(path, version, HEAD))
