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
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool


def upgrade(path: Path, version: str | None) -> bool:
    """Bring the SQLite file at ``path`` from ``version`` (None: empty) to the newest. False where it is unknown."""
    scripts = ScriptDirectory(str(Path(__file__).parent))
    try:
        steps = list(scripts.iterate_revisions("head", version or "base"))
    except (CommandError, RevisionError):
        return False
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    try:
        with engine.begin() as connection:
            # The driver begins a transaction before INSERT, UPDATE and DELETE alone: a CREATE or ALTER ahead of the
            # first of them would stand by itself.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _apply(MigrationContext.configure(connection), scripts, steps=steps[::-1])
    finally:
        engine.dispose()
    return True


def _apply(context: MigrationContext, scripts: ScriptDirectory, *, steps: list[Script]) -> None:
    with Operations.context(context):
        for step in steps:
            step.module.upgrade()
            context.stamp(scripts, step.revision)
