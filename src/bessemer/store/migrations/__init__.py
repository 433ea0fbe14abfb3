"""Migrations, a module per version under ``versions``, found and put in order by Alembic.

Invariants: a version that was released never changes; a new one is a new module and the new ``HEAD``. A module has
`steps.Steps` for each database (``SQLITE``, ``POSTGRESQL``); those of the first four versions have ``upgrade``, which
is whole in one transaction. An upgrade of a file is one transaction, whatever it is made of: a statement that fails, or
a process that is killed, leaves the file as it was. How a database of a server goes forward is `expanding`'s.
"""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from bessemer.store.migrations.steps import Steps

__all__ = ["SCRIPTS", "Steps", "after", "steps_of", "upgrade", "upgrade_server"]

SCRIPTS = Path(__file__).parent


def upgrade(path: Path, version: str | None) -> bool:
    """Bring the SQLite file at ``path`` from ``version`` (None: empty) to the newest. False where it is unknown."""
    scripts = after(version)
    if scripts is None:
        return False
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    try:
        with engine.begin() as connection:
            # The driver begins a transaction before INSERT, UPDATE and DELETE alone: a CREATE or ALTER ahead of the
            # first of them would stand by itself.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            for script in scripts:
                _whole(connection, script)
    finally:
        engine.dispose()
    return True


def upgrade_server(url: str, script: Script, *, lock_ms: int) -> None:
    """One of the first four versions, in a transaction. Raises TimeoutError where a table's lock is not had in time."""
    import psycopg

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {lock_ms}")
            _whole(connection, script)
    except OperationalError as error:
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise TimeoutError from error
        raise
    finally:
        engine.dispose()


def after(version: str | None) -> list[Script] | None:
    """What leads from ``version`` (None: nothing) to the newest, in order; None where the version is unknown."""
    directory = ScriptDirectory(str(SCRIPTS))
    try:
        return list(directory.iterate_revisions("head", version or "base"))[::-1]
    except (CommandError, RevisionError):
        return None


def steps_of(script: Script, database: str) -> Steps | None:
    """Its lists for ``SQLITE`` or ``POSTGRESQL``; None of one that is whole."""
    found: Steps | None = getattr(script.module, database, None)
    return found


def _whole(connection: Connection, script: Script) -> None:
    """All of a version at once."""
    context = MigrationContext.configure(connection)
    steps = steps_of(script, "SQLITE")
    with Operations.context(context):
        if steps is None:
            script.module.upgrade()
        else:
            _stepped(connection, steps)
        context.stamp(ScriptDirectory(str(SCRIPTS)), script.revision)
    if script.revision > "0004":
        connection.exec_driver_sql(f"UPDATE counters SET value = {int(script.revision)} WHERE name = 'carries'")


def _stepped(connection: Connection, steps: Steps) -> None:
    for statement in steps.expand:
        connection.exec_driver_sql(statement)
    for statement in steps.migrate:
        while connection.exec_driver_sql(statement).rowcount > 0:
            pass
    for statement in steps.contract:
        connection.exec_driver_sql(statement)
