"""Migrations, a module per version under ``versions``, applied in order by Alembic's operations.

Invariants: a version that was released never changes; a new one is a new module and the new ``HEAD``. An upgrade is one
transaction, whatever it is made of: a statement that fails, or a process that is killed, leaves the file as it was.
"""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

SCRIPTS = Path(__file__).parent


def upgrade(path: Path, version: str | None) -> bool:
    """Bring the SQLite file at ``path`` from ``version`` (None: empty) to the newest. False where it is unknown."""
    # The driver begins a transaction before INSERT, UPDATE and DELETE alone: a CREATE or ALTER ahead of the first of
    # them would stand by itself.
    return _upgrade(create_engine(f"sqlite:///{path}", poolclass=NullPool), version, first="BEGIN IMMEDIATE")


def upgrade_database(url: str, version: str) -> bool:
    """The same for a database of PostgreSQL; the caller keeps others from it."""
    import psycopg

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    return _upgrade(engine, version, first="SET LOCAL lock_timeout = '30s'")


def _upgrade(engine: Engine, version: str | None, *, first: str) -> bool:
    scripts = ScriptDirectory(str(SCRIPTS))
    try:
        steps = list(scripts.iterate_revisions("head", version or "base"))
    except (CommandError, RevisionError):
        return False
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(first)
            _apply(MigrationContext.configure(connection), scripts, steps=steps[::-1])
    finally:
        engine.dispose()
    return True


def _apply(context: MigrationContext, scripts: ScriptDirectory, *, steps: list[Script]) -> None:
    with Operations.context(context):
        for step in steps:
            step.module.upgrade()
            context.stamp(scripts, step.revision)
