"""`Waiting`: who waits for a place and what each tenant's share is, by what objects say, followed like the fleet.

So every process knows all who wait, whoever drives their kinds, and knows it again after a restart. Invariants: it
reads everything once and then only changes; what cannot be read waits for nothing; a request is made anew each time
that its object changes, of the flavor and the terms of that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import structlog

from bessemer.core.asking import Asker, Toleration
from bessemer.core.clock import Clock, epoch
from bessemer.core.errors import BessemerError
from bessemer.core.ports import Objects
from bessemer.core.quota import Quota
from bessemer.core.resource import Change
from bessemer.kinds import workload
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.following import Following
from bessemer.kinds.inference.endpoint.spec import Endpoint, EngineChoice, sort_of
from bessemer.kinds.inference.model import Model
from bessemer.kinds.jobs.job.spec import Job, gang_of
from bessemer.placement.queue import Pending, Share

WISHES: Mapping[str, Mapping[str, Any]] = {
    "Instance": {"virtualization": True},
    "Endpoint": {"isolation": True},
    "Vetting": {"isolation": True},
    "Job": {"isolation": True},
}
"""What the replicas of a kind ask for beside what their flavor says."""

_OVER = (b'"deletionTimestamp"', b'"finishedAt":"')
"""What the body of a workload holds that is to go, or has come to its end."""
_WAITS = b'"waitingSince"'

_SHARERS = ("Tenant", "Project")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Reads:
    objects: Objects


class Waiting:
    """``pending`` by uid, ``tree`` by the name of a tenant or project. ``version`` rises with each change of either.
    ``left`` is told the uid of what is gone, to go, or at its end: it asks for nothing more; ``heed`` what each waits
    for, or None, whenever its object is read."""

    def __init__(
        self,
        objects: Objects,
        clock: Clock,
        *,
        left: Callable[[str], None] = lambda _: None,
        heed: Callable[[str, Pending | None], None] = lambda _uid, _pending: None,
    ) -> None:
        self.pending: dict[str, Pending] = {}
        self.tree: dict[str, Share] = {}
        self.version = 0
        self._left = left
        self._heed = heed
        self._reads = _Reads(objects)
        self._following = Following(objects, clock)
        self._unread = {*WISHES, *_SHARERS}
        self._kinds: dict[str, str] = {}

    def ready(self) -> bool:
        """Whether each kind has been read once."""
        return not self._unread

    def forget(self, uid: str) -> None:
        """It has its place, or asks for it no more; its object says so in a moment."""
        if self.pending.pop(uid, None) is not None:
            self.version += 1

    async def run(self) -> None:
        """Follow the kinds, for ever."""
        async with asyncio.TaskGroup() as group:
            for kind in sorted(self._unread):
                listed = partial(self._end_of_list, kind)
                group.create_task(self._following.run(kind, take=self._take, listed=listed))

    async def _take(self, change: Change) -> str:
        """One change; one that cannot be read is left out by itself."""
        kind = change.key.kind
        gone = change.type == "DELETED"
        among: dict[str, Any] = self.tree if kind in _SHARERS else self.pending
        name = change.key.name if kind in _SHARERS else change.uid
        found: Any = None
        try:
            # Most changes of workloads are of those that wait for nothing, which is told without parsing them.
            if kind in _SHARERS and not gone:
                found = _share(orjson.loads(change.body))
            elif _WAITS in change.body and not gone:
                found = await self._pending(change)
        except (BessemerError, ValueError, KeyError) as error:
            log.warning("left out of the queue", kind=kind, name=change.key.name, error=str(error)[:500])
        self._put(among, name, found=found)
        if kind in WISHES and (gone or any(word in change.body for word in _OVER)):
            self._left(name)
        if found is not None and kind not in _SHARERS:
            self._kinds[name] = kind
        return name

    def _put(self, among: dict[str, Any], name: str, *, found: Any) -> None:
        if among is self.pending:
            self._heed(name, found)
            if found is None:
                self._kinds.pop(name, None)
        if among.get(name) == found:
            return
        self.version += 1
        if found is None:
            del among[name]
        else:
            among[name] = found

    def _end_of_list(self, kind: str, listed: set[str]) -> None:
        among: dict[str, Any] = self.tree if kind in _SHARERS else self.pending
        for name in [name for name in among if name not in listed and self._is(kind, name)]:
            self._put(among, name, found=None)
        self._unread.discard(kind)

    def _is(self, kind: str, name: str) -> bool:
        """Whether what is known under a name is of the kind."""
        if kind in _SHARERS:
            return ("--" in name) == (kind == "Project")
        return self._kinds.get(name) == kind

    async def _engine(self, spec: Mapping[str, Any]) -> str:
        """The sort that an Endpoint would have; "" where nobody knows."""
        model = await workload.read(self._reads, Model, name=spec.get("model", ""))
        choice = EngineChoice.model_validate(spec.get("engine") or {})
        sort = sort_of(choice, format=model.status.format) if model is not None else None
        return sort.name if sort is not None else ""

    async def _pending(self, change: Change) -> Pending | None:
        """What its object waits for, or None."""
        body = orjson.loads(change.body)
        spec, meta, status = body["spec"], body["metadata"], body.get("status", {})
        since = status.get("waitingSince")
        if not since or meta.get("deletionTimestamp"):
            return None
        project = change.key.namespace
        flavor = await workload.read(self._reads, Flavor, name=spec["flavor"])
        if flavor is None:
            return None
        terms = await workload.terms_of(self._reads, project)
        tolerations = [Toleration.model_validate(one) for one in spec.get("tolerations", ())]
        wishes = {**WISHES[change.key.kind]}
        if change.key.kind == Endpoint.KIND:
            wishes["engine"] = await self._engine(spec)
        request = workload.request_of(terms, flavor.spec, tolerations=tolerations, **wishes)
        asker = Asker(
            uid=change.uid,
            project=project,
            priority=min(spec.get("priority", 0), terms.max_priority),
            since=int(epoch(since)),
            preemptible=spec.get("preemptible", False),
        )
        if change.key.kind == Job.KIND:
            return Pending(asker, gang_of(Job.load(change.body), member=request))
        return Pending(asker, request)


def _share(body: Mapping[str, Any]) -> Share | None:
    """Of a tenant or a project, where it is another than everybody's."""
    spec = body["spec"]
    quota = Quota.model_validate(spec.get("quota") or {})
    bounds = {f"devices/{model}".removesuffix("/*"): most * 1000 for model, most in quota.devices.items()}
    if quota.milli_cores is not None:
        bounds["cores"] = quota.milli_cores
    if quota.memory_bytes is not None:
        bounds["memory"] = quota.memory_bytes
    found = Share(weight=spec.get("weight", 1), bounds=bounds)
    return None if found == Share() else found
