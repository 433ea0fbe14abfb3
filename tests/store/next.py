"""The release after this one, as far as the store is concerned: another schema, and another meter.

Run as a process it opens the database and writes to it until it is killed, as `crash_writer` of this release does; or
it checks the store, beside those, and says as JSON what each check finds wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

from bessemer.core import quota as register
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Taken
from bessemer.core.quota import Meter, Quota
from bessemer.store import Guard, migrations, open_store, quota, schema_versions
from bessemer.store.kinds import StoreKind
from tests.store import crash_writer
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, body, inventory

HEAD = f"{int(schema_versions.HEAD) + 1:04d}"
BOUND = 1_000_000
_MODULE = f'''
from bessemer.store.migrations.steps import Steps
revision = "{HEAD}"
down_revision = "{schema_versions.HEAD}"
POSTGRESQL = Steps(
    expand=(
        "ALTER TABLE objects ADD COLUMN IF NOT EXISTS shade TEXT",
        "ALTER TABLE objects ALTER COLUMN shade SET DEFAULT 'new'",
        "DROP INDEX CONCURRENTLY IF EXISTS objects_shade",
        "CREATE INDEX CONCURRENTLY objects_shade ON objects (shade)",
    ),
    migrate=(
        "UPDATE objects SET shade = 'filled' WHERE (kind, namespace, name) IN "
        "(SELECT kind, namespace, name FROM objects WHERE shade IS NULL LIMIT 100)",
    ),
    contract=("ALTER TABLE objects ALTER COLUMN shade SET NOT NULL",),
)
'''


class NextQuota(Quota):
    things: Annotated[int | None, Meter(kind="Thing")] = None


def become(folder: Path) -> dict[str, StoreKind]:
    """Let this process be of that release, whose migrations are laid into ``folder``. Answers its kinds."""
    shutil.copytree(migrations.SCRIPTS / "versions", folder / "versions", dirs_exist_ok=True)
    (folder / "versions" / f"v{HEAD}_next.py").write_text(_MODULE)
    migrations.SCRIPTS = folder
    schema_versions.HEAD = HEAD
    register.Quota = quota.Quota = NextQuota  # type: ignore[misc]
    register.METERS = quota.METERS = register._register()
    quota._FIELDS = quota._FIELDS | {"things"}
    return {**KINDS, "Thing": StoreKind(namespaced=True, meter="things")}


async def main(url: str, folder: Path) -> None:
    store = open_store(url, clock=SystemClock(), kinds=become(folder), seal_key=KEY)

    async def tidies() -> None:
        while True:
            await store.tidy()
            await asyncio.sleep(0.2)

    try:
        await store.objects.create(body("Tenant", "acme", namespace="", spec={"quota": {"things": BOUND}}), ALICE)
    except Taken:
        pass  # this is the second of them
    await store.capacity.declare("h1", inventory())
    await asyncio.gather(tidies(), *(crash_writer.objects(store, "next", worker) for worker in range(4)))


async def look(url: str, folder: Path) -> None:
    kinds = become(folder)
    from bessemer.store.check import check_store  # which takes this release's register and schema with it

    found = check_store(url, clock=SystemClock(), kinds=kinds, guard=Guard.of(KEY))
    sys.stdout.write(json.dumps({tally.check: tally.wrong async for tally in found}))


if __name__ == "__main__":
    if sys.argv[3:] == ["check"]:
        asyncio.run(look(sys.argv[1], Path(sys.argv[2])))
    else:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
