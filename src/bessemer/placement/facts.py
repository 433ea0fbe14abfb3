"""What the arrays are told: a host as it stands, and what a claim holds of one."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from operator import attrgetter

from bessemer.core.asking import Decision, Request, Taken
from bessemer.core.hosts import Inventory
from bessemer.placement.shape import Shape


@dataclass(frozen=True, slots=True)
class Wall:
    """Where a host stands, and the tenants that it is dedicated to: to none it is anybody's."""

    site: str = ""
    owners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What placement must know of one host. ``taints`` are keys; ``overcommit_milli`` 4000 sells a thread 4 times."""

    name: str
    inventory: Inventory
    overcommit_milli: int = 1000
    taints: tuple[str, ...] = ()
    wall: Wall = Wall()
    schedulable: bool = True
    reachable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """On what terms a claim stands: whose it is (``workload`` by uid), since when and until when at the latest (None:
    nobody knows), and whether it may be stopped for another (``preemptible``), or started anew elsewhere
    (``restartable``): of what is ``replaced`` another is there before it is stopped, and nothing is lost. Claims of one
    ``gang`` are worth nothing without each other."""

    project: str = ""
    priority: int = 0
    since: int = 0
    ends: int | None = None
    preemptible: bool = False
    restartable: bool = False
    replaced: bool = False
    workload: str = ""
    gang: str = ""


_taken = attrgetter(*(field.name for field in fields(Taken)))


@dataclass(frozen=True, slots=True)
class Hold(Taken):
    """What one claim holds of one host; a device that is named twice is held once. ``shape`` is what it was asked for
    as, where that is known: scarce hosts are rationed by it. ``request`` is what it was placed by, and what another
    place would be looked for with; None where nobody says."""

    _: KW_ONLY
    shape: Shape | None = None
    request: Request | None = None
    tenure: Tenure = Tenure()

    @classmethod
    def of(cls, decision: Decision, *, tenure: Tenure = Tenure()) -> Hold:
        """What a decision takes."""
        request = decision.request
        shape = None if request is None else Shape.of(request).taken(decision.device_milli)
        return cls(*_taken(decision), shape=shape, request=request, tenure=tenure)

    def is_of(self, decision: Decision) -> bool:
        """Whether it is what `of` makes of the decision, but for its tenure: asked where it nearly always is."""
        return self.request is decision.request is not None and _taken(self) == _taken(decision)

    def takes_as(self, other: Hold) -> bool:
        """Whether the other counts for the same, whoever has it and on what terms."""
        return bool(_counted(self) == _counted(other))

    @property
    def frees(self) -> int:
        """Thousandths that its end gives back of each device by itself: of an instance none, for beside others the
        device stays cut."""
        return 0 if self.device_profile else self.device_milli


_counted = attrgetter(*(field.name for field in fields(Hold) if field.name not in ("request", "tenure")))
