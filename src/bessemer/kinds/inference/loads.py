"""What gateways say of each endpoint that scales, and who decides of it: kept in memory by whoever leads the kind.

`Scalers` holds one `Scaler` for each endpoint that a reconcile has named; `LoadFeed` reads the gateways' leases every
other second, lets each decide, and wakes those that decided for another number. What was learnt is lost with the
process, and learnt anew: what is wanted stands in the Endpoint's status, and stays until more is known.

A gateway that is not heard of any more and did not say that it ends may be cut off, and serve on: for `CUT_SECONDS`
nothing is taken from any endpoint that it served. Where no gateway is heard of at all, nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog
from pydantic import ValidationError

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.loads import LOADS, EndpointLoad, LoadReport, Sums
from bessemer.core.ports import Leases
from bessemer.core.resource import Key
from bessemer.kinds.inference.logs import Logs
from bessemer.kinds.inference.scaling import Means, Scale, Scaler, Sight, Verdict

LOOK_SECONDS = 2.0
CUT_SECONDS = 300.0
"""For which a gateway that fell silent counts as one that may serve on."""
_START_SECONDS = 20.0
"""That a start takes, until one was seen."""
_START_WEIGHT = 0.5
_FORGOTTEN_SECONDS = 3600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a reconcile knows of an endpoint: its ``scale`` and ``slots``, how many are ``wanted``, ``ready`` and
    ``starting``, and how full their caches are (None where nobody says it)."""

    scale: Scale
    slots: int
    wanted: int
    ready: int
    starting: int
    cache_share: float | None = None


@dataclass(slots=True)
class _Known:
    key: Key
    standing: Standing
    scaler: Scaler
    named_at: float
    verdict: Verdict | None = None
    silence: str = ""
    served_by: dict[str, tuple[str, Sums]] = field(default_factory=dict)
    """By gateway, its boot and the sums of its last report."""
    sums: Sums = field(default_factory=Sums)
    busy: int = 0
    waiting: int = 0
    rose: tuple[float, int] | None = None
    """When more were asked for, and how many then."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A gateway's last report, and for how many seconds it is overdue; less than 0 while it stands."""

    report: LoadReport
    overdue: float


class Scalers:
    """Of one process. It asks nobody: it is told, and decides."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self.logs = Logs()
        """What gateways say of prompts that are logged."""

    def name(self, uid: str, key: Key, *, standing: Standing, now: float) -> tuple[Verdict | None, str]:
        """What was decided last of an endpoint that stands so, and what lacks of the reports; None where nothing was
        since it was named first."""
        known = self._known.get(uid)
        if known is None or known.standing.scale != standing.scale or known.standing.slots != standing.slots:
            start = known.scaler.means.start_seconds if known is not None else _START_SECONDS
            scaler = Scaler(standing.scale, Means(standing.slots, start))
            known = self._known[uid] = _Known(key, standing, scaler, now)
        self._started(known, standing, now=now)
        known.standing, known.named_at = standing, now
        return known.verdict, known.silence

    def stands(self, uid: str, *, wanted: int, ready: int, cache_share: float | None, now: float) -> None:
        """What a reconcile left behind, of one that it named: the next may be long in coming."""
        known = self._known.get(uid)
        if known is not None:
            starting = max(0, wanted - ready)
            before = known.standing
            standing = replace(before, wanted=wanted, ready=ready, starting=starting, cache_share=cache_share)
            self._started(known, standing, now=now)
            known.standing = standing

    def forget(self, uid: str) -> None:
        """It scales no more."""
        self._known.pop(uid, None)

    def look(self, heard: Iterable[Heard], *, now: float) -> list[Key]:
        """Take what gateways say, and decide; the names of those that want another number."""
        live, cut = [], []
        for one in heard:
            if one.overdue < 0:
                live.append(one.report)
            elif one.overdue < CUT_SECONDS:
                cut.append(one)
        self._count(live)
        woken = self.logs.look(live, now=now)
        for uid, known in list(self._known.items()):
            if now - known.named_at > _FORGOTTEN_SECONDS:
                del self._known[uid]
                continue
            silence = "" if live else "no gateway is heard of: nothing is changed"
            lost = [one for one in cut if any(load.uid == uid for load in one.report.loads)]
            if live and lost:
                silence = f"gateway {lost[0].report.holder} fell silent: what it may serve still is not taken away"
            before, known.silence = known.silence, silence
            known.verdict = self._decide(known, now=now, may_fall=not lost) if live else None
            other = known.verdict is not None and known.verdict.replicas != known.standing.wanted
            if other or before != silence:
                woken.append(known.key)
        return woken

    def _count(self, reports: Iterable[LoadReport]) -> None:
        """Add up over gateways what is there now, and what came since the last report of each."""
        for known in self._known.values():
            known.busy = known.waiting = 0
        for report in reports:
            for load in report.loads:
                known_ = self._known.get(load.uid)
                if known_ is not None:
                    _add(known_, report, load=load)

    def _decide(self, known: _Known, *, now: float, may_fall: bool) -> Verdict:
        standing = known.standing
        sight = Sight(
            at=now,
            busy=known.busy,
            waiting=known.waiting,
            ready=standing.ready,
            starting=standing.starting,
            sums=known.sums,
            kv_share=standing.cache_share,
        )
        verdict = known.scaler.decide(sight, present=standing.wanted)
        if verdict.replicas < standing.wanted and not may_fall:
            return Verdict(standing.wanted, verdict.why)
        return verdict

    def _started(self, known: _Known, standing: Standing, *, now: float) -> None:
        """Learn how long a start takes: until as many answer as were asked for."""
        if standing.wanted > known.standing.wanted:
            known.rose = (now, standing.wanted)
        elif known.rose is not None:
            since, wanted = known.rose
            if standing.wanted < wanted:
                known.rose = None
            elif standing.ready >= wanted:
                means, took = known.scaler.means, now - since
                seconds = means.start_seconds + _START_WEIGHT * (took - means.start_seconds)
                known.scaler.means = Means(means.slots, max(1.0, seconds))
                known.rose = None


def _add(known: _Known, report: LoadReport, *, load: EndpointLoad) -> None:
    known.busy += load.busy
    known.waiting += load.waiting
    boot, before = known.served_by.get(report.holder, (report.boot, None))
    counted = load.counted
    known.served_by[report.holder] = (report.boot, counted)
    if before is None:
        return  # what it counted before it was heard here is of another time
    new = counted if boot != report.boot else counted - before
    if not new.counted_anew:
        known.sums += new


class LoadFeed:
    """Reads what gateways say, for ever. ``wake`` is the loop's."""

    def __init__(self, scalers: Scalers, leases: Leases, *, clock: Clock, wake: Callable[[Key], None]) -> None:
        self._scalers = scalers
        self._leases = leases
        self._clock = clock
        self._wake = wake
        self._read: dict[str, tuple[str, LoadReport | None]] = {}

    async def run(self) -> None:
        """Look, for ever; what the store refuses is asked again."""
        while True:
            try:
                await self.look()
            except BessemerError as error:
                log.warning("loads cannot be read", error=str(error), internal=error.internal)
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        leases, now = await self._leases.held(LOADS), self._clock.now()
        heard = []
        for lease in leases:
            report = self._report(lease.name, lease.note)
            if report is not None:
                heard.append(Heard(report, now - lease.expires_at))
        for key in self._scalers.look(heard, now=self._clock.monotonic()):
            self._wake(key)

    def _report(self, name: str, note: str) -> LoadReport | None:
        known = self._read.get(name)
        if known is not None and known[0] == note:
            return known[1]
        try:
            report = LoadReport.model_validate_json(note)
        except ValidationError:
            log.warning("a gateway's report cannot be read", gateway=name)
            report = None
        self._read[name] = (note, report)
        return report
