"""Whether a store holds what it promises (`docs/store.md`, "What holds"): each invariant by name, and what breaks it.

It reads one commit (`snapshot`), beside whoever writes, and changes nothing. Bodies are read once; the checks of tables
that repeat what bodies say come after. A check whose rows cannot be read ends the whole: Unavailable.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bessemer.core.clock import Clock
from bessemer.store import check_accounts, check_bounds, check_capacity, check_objects, check_pinned, check_schema
from bessemer.store.events import FACTS
from bessemer.store.heads import Signing
from bessemer.store.kinds import CLAIM, EVENT, StoreKind
from bessemer.store.snapshot import Snapshot, looking
from bessemer.store.store import Guard
from bessemer.store.tally import Survey, Tally
from bessemer.store.vault import Vault

Check = Callable[[Snapshot, Survey], Tally]

CHECKS: tuple[Check, ...] = (
    check_schema.schema,
    check_objects.names,
    check_objects.indexed_labels,
    check_objects.indexed_owners,
    check_objects.blocking,
    check_objects.owned,
    check_objects.projects,
    check_objects.history,
    check_objects.logged,
    check_capacity.devices,
    check_capacity.parts,
    check_capacity.nodes,
    check_pinned.threads,
    check_pinned.hugepages,
    check_pinned.companions,
    check_capacity.on_hosts,
    check_capacity.use,
    check_capacity.bounds,
    check_capacity.walled,
    check_bounds.asked,
    check_accounts.intervals,
    check_accounts.corrections,
    check_accounts.owned_values,
)


async def check_store(
    where: str | Path, *, clock: Clock, kinds: Mapping[str, StoreKind], guard: Guard
) -> AsyncIterator[Tally]:
    """Each check as it ends, of one commit. Raises Invalid, Conflict, Unavailable, and OSError where heads beside the
    database cannot be read."""
    facts = {CLAIM: StoreKind(namespaced=True), EVENT: FACTS, **kinds}
    # A head that was told by now is of a row that the look sees; what is told later is not looked at.
    with _heads_of(guard.signing) as signing, looking(where, clock=clock) as snapshot:
        survey = Survey(facts)
        yield check_objects.bodies(snapshot, survey)
        survey.take(snapshot)
        for one in CHECKS:
            yield one(snapshot, survey)
        vault = Vault(guard.wrapping, clock=clock, direct=guard.direct)
        yield await check_accounts.secrets(snapshot, survey, vault=vault)
        yield await check_accounts.chained(snapshot, survey, signing=signing)


@contextmanager
def _heads_of(signing: Signing) -> Iterator[Signing]:
    """The heads beside the database as they are now."""
    if signing.file is None or not signing.file.exists():
        yield signing
        return
    with tempfile.TemporaryDirectory(prefix="bessemer-check-") as folder:
        copy = Path(folder) / "heads.jsonl"
        shutil.copyfile(signing.file, copy)
        yield replace(signing, file=copy)
