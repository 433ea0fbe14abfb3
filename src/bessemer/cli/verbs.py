"""The verbs that build things, as callables that ``main`` hands in, so that the CLI needs no room above it.

Each returns an exit status and prints for a person; ``simulate`` returns what it found, for the CLI to show. Options
are values: what a flag means is decided there, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bessemer.core.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """``bessemer up``. ``None`` leaves a setting as the state directory has it."""

    state: Path | None = None
    fake_hosts: int | None = None
    api_port: int | None = None
    portal_port: int | None = None
    gateway_port: int | None = None
    store: str | None = None
    detach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """``bessemer server``: some parts in this process, in the foreground."""

    state: Path | None = None
    parts: tuple[str, ...] = ("api", "controller", "portal")
    store: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """``bessemer agent``: the agent of this machine; with ``fake`` the agents of all fake hosts.

    ``server``, ``ca`` and ``token`` join a machine that has no control plane of its own to one elsewhere; ``door_host``
    is the address of this machine at which a gateway elsewhere reaches its engines.
    """

    state: Path | None = None
    fake: bool = False
    server: str = ""
    ca: Path | None = None
    name: str = ""
    token: str = ""
    door_host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """``bessemer demo``: the whole road. ``stay`` keeps the system up until Ctrl-C."""

    state: Path | None = None
    fake_hosts: int = 200
    stay: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """``bessemer doctor``."""

    state: Path | None = None
    output: str = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisksOptions:
    """``bessemer disks``: what became of the disks of this host. First ``retry`` is to be wiped again, or ``release``
    to be given away as it is."""

    state: Path | None = None
    retry: str = ""
    release: str = ""
    output: str = "table"


KeyAct = Literal["show", "stage", "rotate", "follow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOptions:
    """``bessemer store keys`` and ``rotate-key``. ``act``: what is done before the keys are shown. ``values`` seals
    every value anew."""

    state: Path | None = None
    act: KeyAct = "show"
    values: bool = False
    remove: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """``bessemer store check``."""

    state: Path | None = None
    store: str | None = None
    output: str = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """``bessemer store copy``: each place is a file or an address. ``state`` has the password of a database."""

    source: str
    target: str
    state: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """``bessemer backup``; with ``verify`` a file that is there is read. Without ``key_file`` a passphrase is asked
    for. ``content`` takes images and models along."""

    file: Path
    state: Path | None = None
    store: str | None = None
    key_file: Path | None = None
    content: bool = False
    verify: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """``bessemer restore``. ``force`` moves a state directory that is there aside."""

    file: Path
    state: Path | None = None
    store: str | None = None
    key_file: Path | None = None
    force: bool = False


Told = Callable[[float], None]
"""Hears how much is done, from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FillOptions:
    """``bessemer simulate openb``: requests come until they want ``inflate`` times what there is, and stay. ``policy``
    "" is the product's own; ``processes`` 0 are as many as there are cores. ``moves_per_hundred`` requests that came
    are made at most, ``moves_at_once`` of them for one that would be refused, each for ``moves_gain`` devices and
    more."""

    nodes: Path
    pods: Path
    policy: str = ""
    seeds: int = 10
    first_seed: int = 42
    processes: int = 0
    inflate: float = 1.3
    moves_per_hundred: float = 0.0
    moves_at_once: int = 1
    moves_gain: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChurnOptions:
    """``bessemer simulate churn``: requests come and leave, and would want ``load`` of what there is. ``warm_up`` and
    ``stays`` are lengths in mean stays; moves as in `FillOptions`, and ``moves_saved`` of them, of the warm-up too, may
    be kept for a rush (None: however many, of what came since)."""

    nodes: Path
    pods: Path
    policy: str = ""
    seeds: int = 10
    first_seed: int = 42
    processes: int = 0
    load: float = 0.95
    warm_up: float = 3.0
    stays: float = 5.0
    moves_per_hundred: float = 0.0
    moves_at_once: int = 8
    moves_gain: float = 0.0
    moves_saved: int | None = None


Waits = Literal["lost", "passing", "queued"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """``bessemer simulate fleet`` and ``history``: over the fleet of a file, with a drawn load of what it says is asked
    for, or with a ``history`` that was (``churn`` and ``hours`` mean nothing then). ``more`` are hosts that a group has
    more in a second case beside the first; each of ``policies`` is a case of its own (none: the product's own).
    ``waits``: who finds no room is ``lost``, waits ``passing`` (whoever fits begins) or ``queued`` (by the product's
    queue). ``moves_per_hundred`` are allowed for a hundred that came."""

    fleet: Path
    history: Path | None = None
    policies: tuple[str, ...] = ()
    more: Mapping[str, int] = field(default_factory=dict)
    churn: float = 0.95
    hours: float = 24.0
    warm_up: float = 24.0
    waits: Waits = "passing"
    moves_per_hundred: float = 0.0
    moves_at_once: int = 8
    moves_gain: float = 0.0
    seeds: int = 3
    first_seed: int = 42
    processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """``bessemer simulate inference``: the requests of a trace over an endpoint that scales, ``times`` as many as came.
    Each of ``policies`` is a case of its own (none: the product's own, beside all others). ``model`` names a replica
    whose speeds are known; ``speeds`` are those that are said otherwise, by the names of `kinds`' ``Speed``."""

    trace: Path
    policies: tuple[str, ...] = ()
    times: int = 1
    first: int = 1
    least: int = 1
    most: int = 100
    ttft_ms: int | None = 1000
    inter_token_ms: int | None = 40
    model: str = "70b"
    speeds: Mapping[str, float] = field(default_factory=dict)
    seed: int = 42


SimulateOptions = FillOptions | ChurnOptions | FleetOptions | InferenceOptions

Document = Mapping[str, Any]
"""What a replay came to, as ``--json`` prints it."""


def _no_keys(_: KeyOptions) -> int:
    raise Invalid("no keys are kept here")


def _no_disks(_: DisksOptions) -> int:
    raise Invalid("no disks are given away here")


def _no_replay(_: SimulateOptions, __: Told) -> Document:
    raise Invalid("nothing is replayed here")


def _no_store(_: object) -> int:
    raise Invalid("no store is kept here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbs:
    """What ``main`` can do for the CLI. ``kubeconfig`` finds the file of a state directory."""

    up: Callable[[UpOptions], int]
    down: Callable[[Path | None], int]
    server: Callable[[ServerOptions], int]
    agent: Callable[[AgentOptions], int]
    demo: Callable[[DemoOptions], int]
    doctor: Callable[[DoctorOptions], int]
    kubeconfig: Callable[[Path | None], Path]
    disks: Callable[[DisksOptions], int] = _no_disks
    keys: Callable[[KeyOptions], int] = _no_keys
    check: Callable[[CheckOptions], int] = _no_store
    copy: Callable[[CopyOptions], int] = _no_store
    backup: Callable[[BackupOptions], int] = _no_store
    restore: Callable[[RestoreOptions], int] = _no_store
    simulate: Callable[[SimulateOptions, Told], Document] = _no_replay
