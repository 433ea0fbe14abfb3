"""How the rooms reach storage. ``store`` implements these in SQL, ``client`` over HTTPS (`Objects` alone).

Each write names its `Writer`; who may write what is held here, below HTTP, so that it holds without HTTP too:
Claims are written by `Capacity` alone, a Claim's status and a Host's ``status.report`` by that host's agent alone.
The ports of the trail and of sealed values stand in `core.kept`, and are found here too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from bessemer.core.hosts import Inventory
from bessemer.core.kept import Audit, AuditFilter, AuditRow, Sealed, SealedKeys, Wrapping
from bessemer.core.money import Wish
from bessemer.core.notices import Happening, Notice
from bessemer.core.quota import Quota, Share, Use
from bessemer.core.resource import Change, Key
from bessemer.core.taking import Telling, Wanted
from bessemer.core.values import LedgerEntry, UsageBatch

__all__ = [
    "CONTROLLER",
    "HEARTBEATS",
    "UNDER",
    "Audit",
    "AuditFilter",
    "AuditRow",
    "Bookmark",
    "Capacity",
    "DeviceUse",
    "Events",
    "Fence",
    "Lease",
    "Leases",
    "Ledger",
    "Objects",
    "Page",
    "Part",
    "Policy",
    "Scope",
    "Sealed",
    "SealedKeys",
    "Stored",
    "Wrapping",
    "Writer",
]


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes. ``name`` is a user's name, a host's for an agent, a part's otherwise."""

    kind: Literal["user", "controller", "agent", "gateway", "system"]
    name: str
    request_id: str = ""
    source: str = ""


CONTROLLER = Writer("controller", "controller")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is kept and served: ``body`` is the exact JSON."""

    key: Key
    uid: str
    revision: int
    generation: int
    host: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, all of one ``revision``. ``next`` is "" at the end; ``remaining`` counts what follows it."""

    items: Sequence[Stored]
    revision: int
    next: str = ""
    remaining: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which objects of a kind. None is any; ``labels`` must all be equal; ``host`` is Claim ``spec.host``.

    ``namespaces`` bounds the view of somebody who may see some projects only; ``names`` likewise for kinds without;
    ``places`` of somebody who may see some objects only: names by namespace, None for all there.
    """

    kind: str
    namespace: str | None = None
    name: str | None = None
    host: str | None = None
    namespaces: frozenset[str] | None = None
    names: frozenset[str] | None = None
    places: Mapping[str, frozenset[str] | None] | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Asker:
    """Who has a list in pages: no other ``name`` continues it, what the store keeps for it counts for ``group``, and
    nothing of a revision before ``since`` is shown when it is continued."""

    name: str = ""
    group: str = ""
    since: int = 0


NOBODY = Asker()
"""The process itself."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything up to ``revision`` has been delivered."""

    revision: int


Part = Literal["main", "status", "report"]
"""``main``: metadata and spec (status in the body is ignored). ``status``: the control side's fields of status, all of
status for a Claim's agent. ``report``: ``status.report`` of a Host, its agent's."""


Policy = Literal["Background", "Foreground", "Orphan"]
"""What becomes of what an object owns: it goes behind it, or before it, or stays and names it no more."""


class Watchable(Protocol):
    """What follows a kind needs no more."""

    def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Change | Bookmark]:
        """See `Objects.watch`."""
        ...


class Objects(Protocol):
    """Objects by key. Every method raises errors of ``core.errors``."""

    async def get(self, key: Key) -> Stored:
        """Raises NotFound."""
        ...

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "", asker: Asker = NOBODY) -> Page:
        """In order of namespace and name. ``limit`` 0 is all. ``after`` is the ``next`` of a page that the same asker
        had of the same kind. Raises Expired where its snapshot is lost, Malformed where it is none."""
        ...

    # ``sealed`` is what the object's sealed values are from this write on, by field, in its transaction; None leaves
    # them as they are.

    async def create(
        self,
        body: Mapping[str, Any],
        writer: Writer,
        *,
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
    ) -> Stored:
        """``body`` holds apiVersion, kind, metadata.name (and namespace), spec. Raises AlreadyExists, Forbidden,
        QuotaExceeded."""
        ...

    async def replace(
        self,
        body: Mapping[str, Any],
        writer: Writer,
        *,
        part: Part = "main",
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
    ) -> Stored:
        """Replace one part. A ``metadata.resourceVersion`` or ``uid`` in the body must match. A write that changes
        nothing keeps the revision. Raises NotFound, Conflict, Forbidden."""
        ...

    async def delete(
        self,
        key: Key,
        writer: Writer,
        *,
        uid: str = "",
        revision: str = "",
        dry_run: bool = False,
        policy: Policy | None = None,
    ) -> Stored:
        """Delete, or set deletionTimestamp while finalizers stand. Owned objects follow, by ``policy``; with None by
        the finalizers that say so, and else in the background. A ``uid`` or ``revision`` must be the object's. Answers
        it as it went, or as it was marked. Raises NotFound, Conflict."""
        ...

    def watch(
        self,
        scope: Scope,
        *,
        since: int | None = None,
        level: bool = False,
        lagged: Callable[[], None] | None = None,
    ) -> AsyncIterator[Change | Bookmark]:
        """Every change after ``since``, in order of revision, for ever; with None first an ADDED for each object that
        there is, then a Bookmark. With ``level`` also a Bookmark of the present each time that nothing is left to tell.
        ``lagged`` is called where more has happened than waits here, before that is read, which may take a while.
        Raises Expired where history does not reach back to ``since``."""
        ...


class Capacity(Protocol):
    """The one writer of Claims: quota, hardware, ledger and object change in one transaction."""

    # ``revision`` is that of the Host, Tenant or Project out of which the rows are made; with one, the call raises
    # Conflict where the object has changed since, for then somebody else may have said something newer.

    async def declare(
        self,
        host: str,
        inventory: Inventory,
        *,
        overcommit_milli: int = 1000,
        schedulable: bool = True,
        revision: str = "",
    ) -> None:
        """Let the rows of capacity follow what the agent found. A claimed device that vanished is marked lost, not
        deleted. ``overcommit_milli`` 4000 sells each core four times."""
        ...

    async def withdraw(self, host: str, *, revision: str = "") -> None:
        """The host is gone: drop its rows. Raises Conflict while a Claim stands there."""
        ...

    async def take(
        self, claims: Sequence[Wanted], writer: Writer, *, terms: str = "", tells: Telling | None = None
    ) -> Sequence[Stored]:
        """All of them or none. A claim that exists with the same workload, replica and host is returned as it is, so
        that a second call is harmless. ``terms`` is the revision of the Tenant by which it was decided, ``tells`` a
        status that is written with them, and answered last. Raises QuotaExceeded, Walled, Taken, Conflict."""
        ...

    # ``uid`` is the Claim's whose body was read: names come again, and a call that was held up on its way must not
    # reach the next of that name.

    async def amend(self, key: Key, intent: Mapping[str, Any], writer: Writer, *, uid: str = "") -> Stored:
        """New intent on the same hardware; generation + 1, or nothing where the intent is equal. Raises NotFound,
        Conflict where another has the name."""
        ...

    async def retire(self, key: Key, writer: Writer, *, uid: str = "", notice: Notice | None = None) -> Stored:
        """Ask for the end: sets deletionTimestamp. Harmless when repeated. With a ``notice`` it is only told that the
        end will be asked for; the first that is told stays, until `SPARED` takes it back, which does nothing once its
        time has come. Raises NotFound, Conflict where another has the name."""
        ...

    async def release(self, key: Key, writer: Writer, *, fenced: bool = False, uid: str = "") -> None:
        """Free the hardware, close the interval, remove the Claim. Raises Conflict unless the agent reported Gone or
        ``fenced`` says that the host cannot run it any more. Harmless when repeated, and where another has the
        name."""
        ...

    async def set_quota(self, scope: str, quota: Quota, *, revision: str = "") -> None:
        """Bounds of ``tenant/NAME`` or ``project/NAME``; below present use it stops new claims and touches
        nothing. Raises Conflict with a ``revision`` that is not the last."""
        ...

    async def use(self, scope: str) -> Sequence[Use]:
        """Each meter of the scope; of one that is counted within a window, what was given out of the present one."""
        ...

    async def hold(self, project: str, *, meter: str, amount: int, money: Wish | None = None) -> Share:
        """Give out ``amount`` of what project and tenant may within the present window, whole or not at all, and let
        the statement ``money`` stand with it. A call whose answer is lost gives out twice: less is used than may be,
        never more; a statement may be made again. Raises QuotaExceeded, Invalid."""
        ...

    async def held_by(self, holder: str) -> Sequence[str]:
        """The names of the projects of whose money a gateway holds some, by its statements. What a process that was
        killed left is given back by who has its name next."""
        ...

    async def told(self, scope: str, *, meter: str, used: int, upto: int) -> None:
        """What the ledger came to for a scope, up to its row ``upto`` (`Ledger.last`, read before): what was appended
        since is added. Once it comes up to the bound nothing new is taken, given out or made. Raises Invalid for a
        meter that is counted here."""
        ...

    async def devices(self) -> Sequence[DeviceUse]:
        """Every device row: whose it is, and whether it is lost."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """One device row. ``claim`` is the uid that holds it or ""; ``lost`` is claimed but no longer found."""

    host: str
    device: str
    model: str
    claim: str
    lost: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """A time-bound right. ``fence`` grows with each new holder; a stale holder's fence is smaller."""

    name: str
    holder: str
    fence: int
    expires_at: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fence:
    """By which lease somebody writes, and the number under which it was given."""

    lease: str
    number: int


UNDER: ContextVar[Fence | None] = ContextVar("under", default=None)
"""The fence of the present task, and of those that it starts: a loop sets it for each turn, so what outlives a turn is
started in a context of its own. The store refuses with Conflict what comes under a fence that is not its lease's last,
however long it was on its way. None asks for no lease."""


HEARTBEATS = "host/"
"""What the name of a host's lease begins with; the host's name follows."""


class Leases(Protocol):
    """Leases by name, on the server's clock. ``host/NAME`` is a host's heartbeat (note: who holds its stream)."""

    async def acquire(
        self, name: str, holder: str, ttl_seconds: float, *, note: str = "", patience: float = 0.0
    ) -> Lease | None:
        """Take or renew; None while somebody else holds it. Changes no object. The time runs from the call on, which
        may be answered up to ``patience`` seconds later, so that many are written together."""
        ...

    async def release(self, name: str, holder: str) -> None: ...

    async def held(self, prefix: str) -> Sequence[Lease]:
        """Every lease under a prefix, run out or not."""
        ...

    async def ending(self, prefix: str, within: float) -> Sequence[Lease]:
        """Of these the ones that have run out, or will within so many seconds unless they are renewed: few of many."""
        ...


class Ledger(Protocol):
    """The append-only account. Interval rows are written by Capacity and by status writes, in their transaction."""

    async def settle(self, batch: UsageBatch) -> int:
        """Append what is new of the batch; answers the highest sequence stored for the spool. Raises Conflict for a
        gap."""
        ...

    def window(self, *, start: int, end: int, project_uid: str) -> AsyncIterator[LedgerEntry]:
        """What is needed to account for ``[start, end)`` of a project, a few rows at a time: every correction,
        in order; then the rows of each claim that was alive in the time, from its open row on, claim by claim; then
        tokens. Nothing else with ``at`` from ``end`` on."""
        ...

    async def last(self) -> int:
        """The number of the last row; every row that is appended from now on has a higher one."""
        ...

    async def projects(self, tenant_uid: str) -> Sequence[str]:
        """The uids of every project of the tenant that the ledger knows, gone ones too."""
        ...

    async def entries(self) -> Sequence[LedgerEntry]:
        """Every row of everybody in order: for small ledgers and for checks."""
        ...

    async def lose(self, claims: Collection[str]) -> int:
        """What ran for the claims with these uids was ended, and no agent is there to say so: from now on their time is
        ``lost``. Answers for how many that is new."""
        ...

    async def correct(self, row: int, quantities: Mapping[str, int], writer: Writer) -> LedgerEntry:
        """Append a correction that names the row. Raises NotFound."""
        ...


class Events(Protocol):
    """What happened to an object, in words. Equal (object, type, reason, message) raise a count instead of a row."""

    async def emit(self, key: Key, uid: str, reason: str, message: str, *, warning: bool = False) -> None: ...

    async def tell(self, body: Mapping[str, Any], writer: Writer, *, happenings: Sequence[Happening]) -> Stored:
        """Replace a status, and note with it what that tells. Raises as `Objects.replace` does."""
        ...
