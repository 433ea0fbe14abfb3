"""A database of a server goes forward while replicas of the release before write to it: expand, migrate, contract.

Invariants: what is done while an older replica serves only adds; what it could not bear is done in the transaction that
no longer admits it; each part may be killed anywhere and is taken up by the next start, or by any replica's tidying.
Statements stand in ``migrations/versions``, who serves in `beside`, how a table is locked in `tables`. A file's way is
`schema_versions`'.
"""

from __future__ import annotations

from functools import partial

import structlog

from bessemer.core.errors import Unavailable
from bessemer.store import beside, schema_versions
from bessemer.store.tables import LOCK_MS, Tables, patiently

log = structlog.get_logger(__name__)


def prepare_database(tables: Tables, url: str) -> bool:
    """Make the tables, or bring them to where this release may write, by whichever of several processes comes first.
    False where something is left for `finish`. Raises Invalid where the server will not do, Unavailable where a newer
    release has taken it beyond this one."""
    with tables.alone():
        version = tables.version()
        if version is None:
            tables.script(schema_versions.ddl_of_database())
            return True
        if version == schema_versions.HEAD:
            _guard(tables)
            return not tables.older(int(version)) and finish(tables)
        if _expand(tables, url, version=version):
            return not tables.older(int(schema_versions.HEAD)) and finish(tables)
        if tables.carried() in range(beside.SAYS, int(schema_versions.HEAD) + 1):
            log.warning("the database is expanded for a newer release", schema=version, here=schema_versions.HEAD)
            return True  # whoever is newer finishes it
    raise Unavailable(beside.too_old(version))


def _expand(tables: Tables, url: str, *, version: str) -> bool:
    """False where the version is none that this release knows."""
    from bessemer.store import migrations  # not paid for by those who need none

    scripts = migrations.after(version)
    if scripts is None:
        return False
    for script in scripts:
        steps = migrations.steps_of(script, "POSTGRESQL")
        if steps is None:  # it adds, too, in a transaction of its own
            patiently(partial(migrations.upgrade_server, url, script, lock_ms=LOCK_MS), what=script.revision)
            continue
        for statement in (*steps.expand, *steps.guard):
            tables.grow(statement)
        tables.script(f"UPDATE alembic_version SET version_num = '{script.revision}'")
    return True


def _guard(tables: Tables) -> None:
    """What a release that expanded it knew nothing of, is made now: in a database that is not contracted yet."""
    carried = tables.carried()
    if carried >= int(schema_versions.HEAD):
        return
    from bessemer.store import migrations

    for script in migrations.after(f"{carried:04d}") or ():
        for statement in (migrations.steps_of(script, "POSTGRESQL") or migrations.Steps()).guard:
            tables.grow(statement)


def finish(tables: Tables) -> bool:
    """Fill in what is missing, contract once no older replica serves, and drop what guarded against those. False where
    one does, or a table is held."""
    if tables.carried() < int(schema_versions.HEAD) and not _contracted(tables):
        return False
    # A newer release that has begun meanwhile has guards of its own.
    return tables.version() != schema_versions.HEAD or tables.unguard()


def _contracted(tables: Tables) -> bool:
    from bessemer.store import migrations

    carried = tables.carried()
    for script in migrations.after(f"{carried:04d}") or ():
        steps = migrations.steps_of(script, "POSTGRESQL") or migrations.Steps()
        for statement in steps.migrate:
            while tables.fill(statement):
                pass
        if not tables.contract(steps.contract, carries=int(script.revision), migrate=steps.migrate):
            if older := tables.older(int(script.revision)):
                log.info("the tables stay as older replicas need them", schema=carried, writers=older)
            else:
                log.info("the tables stay as they are while somebody has one of them locked", schema=carried)
            return False
        carried = int(script.revision)
        log.info("the tables are those of this schema alone", schema=script.revision)
    return True
