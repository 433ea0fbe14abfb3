"""Job: a gang of processes on hosts, run to completion; each member holds a Claim.

Invariants: all members are placed in one transaction or none; a member's process is started once; when one fails, all
are stopped, and the gang is taken anew at most ``backoffLimit`` times. Once it has ended its Claims are let go, and it
stays as a record. It is no queue, no image and no shared filesystem: it runs what its hosts have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from bessemer.core.asking import Gang, Level, RailPolicy, Request, Toleration
from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel, Resource, keyed_by
from bessemer.core.values import Movable, nothing
from bessemer.drivers.jobs.protocol import SCRIPT_BYTES_MAX
from bessemer.kinds.fields import Name, Names, ShortText, duplicates, label_problems, unchangeable
from bessemer.kinds.turns import Turned, WaitingStatus

MEMBERS_MAX = 1024
SCRIPTS_BYTES_MAX = 16 << 20
"""Of the script in all members' Claims together: each carries its own."""

OURS = frozenset(
    {
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "NODE_RANK",
        "NNODES",
        "MASTER_ADDR",
        "MASTER_PORT",
    }
)
"""What each member is told, as torchrun says it, beside all that begins with `PREFIX`."""

PREFIX = "BESSEMER_"

Word = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=4096)]
"""Anything that a command line or an environment can hold."""

_LOADER = re.compile(r"LD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH")
"""What the loader and the C library obey: a member's environment is also that of the programs that give up root."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Topology(ApiModel):
    """How its members lie to each other; see `core.asking.Gang`."""

    level: Level = Field("leaf", description="All lie under one switch of this level, or on one host.")
    policy: Literal["required", "preferred"] = Field(
        "preferred", description="Whether the level must hold, or is come as close to as can be."
    )
    segment: int = Field(
        0, ge=0, le=MEMBERS_MAX, description="Blocks of so many members in a row lie together; 0: none."
    )
    segment_level: Level = Field("leaf", description="Under one switch of this level each block lies.")
    per_host: int = Field(0, ge=0, le=MEMBERS_MAX, description="Members that may share a host; 0: as many as fit.")
    spread: bool = Field(False, description="As many hosts as possible, in place of as few.")
    # Left out where it says nothing: a release that does not know it reads the object as well.
    rails: RailPolicy = Field(
        "",
        exclude_if=nothing,
        description="Each has a host to itself, and all have devices on the same rails: they must, or do if they can.",
    )


class JobSpec(Turned):
    movable: bool = Field(
        False,
        exclude_if=nothing,
        description="Whether it may be stopped and begun anew on another host, so that what is free lies together; of "
        "one member alone. Counts for places that are taken from then on. What is preemptible may be moved, too.",
    )
    flavor: Annotated[Name, Names("Flavor")] = Field(description="Name of the Flavor: the size of one member.")
    members: int = Field(1, ge=1, le=MEMBERS_MAX, description="Processes that run at the same time.")
    script: Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=SCRIPT_BYTES_MAX)] = Field(
        "", description="What /bin/sh runs in each member, at most 64 KiB; or see command."
    )
    command: Word = Field("", description="What each member runs in place of a script: a program of its host.")
    args: list[Word] = Field(default_factory=list, max_length=256, description="Arguments of the script or command.")
    env: dict[str, Word] = Field(default_factory=dict, max_length=128, description="Environment of each member.")
    topology: Topology = Field(default_factory=Topology, description="How its members lie to each other.")
    subnet: ShortText = Field(
        "", description="Members reach each other in this network (10.9.0.0/16); empty takes a host's first address."
    )
    deadline_seconds: int | None = Field(
        None, ge=1, le=1 << 31, description="It fails when it has not ended so long after its first start."
    )
    backoff_limit: int = Field(
        0, ge=0, le=100, description="How often the whole gang is started again after a failure."
    )
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, le=1 << 31, description="It is deleted so long after its end; without this it stays."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=64,
        description="Taints of hosts that its members bear.",
        json_schema_extra=keyed_by("key"),
    )

    @property
    def moves(self) -> Movable:
        """A gang would have to begin anew for the place of one."""
        return "Restart" if self.members == 1 and (self.movable or self.preemptible) else ""


class JobHost(ApiModel):
    """A host of the gang."""

    name: str = Field(description="The host.")
    address: str = Field("", description="Where the other members reach those on it.")
    ranks: list[int] = Field(description="The members that are on it.")


class MemberFailure(ApiModel):
    """The member that failed first, of the last attempt in which one did."""

    rank: int = Field(description="Its rank.")
    host: str = Field(description="The host that it was on.")
    attempt: int = Field(description="In which attempt, from 0.")
    exit_code: int | None = Field(
        None, description="Its exit status, 128 + N after signal N; none where nobody saw it."
    )
    reason: str = Field(description="Why, in one CamelCase word.")
    message: str = Field(description="Why, in a sentence.")


JobPhase = Literal["Pending", "Placing", "Running", "Restarting", "Succeeded", "Failed", "Terminating", "Unknown"]


class JobStatus(WaitingStatus):
    phase: JobPhase = Field("Pending", description="Where it is in its life, in one word.")
    members: dict[str, int] = Field(default_factory=dict, description="How many of its Claims are in which phase.")
    hosts: list[JobHost] = Field(
        default_factory=list, description="Where its members are, or were last.", json_schema_extra=keyed_by("name")
    )
    leaves: int = Field(0, description="Leaf switches above them.")
    spines: int = Field(0, description="Spine switches above those.")
    attempt: int = Field(0, description="Which start of the gang this is, from 0.")
    failures: int = Field(0, description="Attempts that a member of the job's own ended; backoffLimit bounds them.")
    losses: int = Field(0, description="Attempts that the platform lost; they do not count as failures.")
    not_before: str | None = Field(None, description="When the gang is taken anew at the earliest.")
    started_at: str | None = Field(None, description="When its first place was taken.")
    finished_at: str | None = Field(None, description="When it succeeded or failed for good.")
    failure: MemberFailure | None = Field(None, description="The member that failed first.")
    fake: bool = Field(False, description="Whether a member is on a fake host.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Job(Resource[JobSpec, JobStatus]):
    KIND = "Job"

    status: JobStatus = Field(default_factory=JobStatus)


class JobIntent(ApiModel):
    """What the control side asks of one member's host side; frozen. Times are epoch seconds; ``ends`` 0 is never."""

    words: list[str]
    script: str = ""
    env: Mapping[str, str] = Field(default_factory=dict)
    hosts: str = ""
    address: str = ""
    cores_milli: int
    memory_bytes: int
    attempt: int = 0
    started: int = 0
    ends: int = 0


def gang_of(job: Job, *, member: Request) -> Gang:
    """What the job asks of the fleet, where ``member`` is what one of it asks."""
    topology = job.spec.topology
    return Gang(
        member=member,
        count=job.spec.members,
        level=topology.level,
        policy=topology.policy,
        segment=topology.segment,
        segment_level=topology.segment_level,
        per_host=topology.per_host,
        spread=topology.spread,
        rails=topology.rails,
    )


def output_name(uid: str, *, rank: int, attempt: int) -> str:
    """Under which name a host keeps what a member of the job with the uid printed."""
    return f"{uid}.{attempt}.{rank}"


def output_of(body: Mapping[str, Any], rank: int) -> tuple[str, str] | None:
    """The host that keeps what the rank of a job printed last, and under which name; None where it never ran."""
    status = body.get("status", {})
    host = next((host["name"] for host in status.get("hosts", ()) if rank in host["ranks"]), "")
    # While the gang is taken anew, what is kept is of the attempt before.
    attempt = status.get("attempt", 0) - (status.get("phase") == "Restarting")
    return (host, output_name(body["metadata"]["uid"], rank=rank, attempt=attempt)) if host else None


_WHY = "members are made with it; make another job"
_MAY_CHANGE = frozenset({"backoff_limit", "ttl_seconds_after_finished", *Turned.model_fields})


def validate(new: Job, old: Job | None) -> Sequence[Cause]:
    """It runs a script or a command; what its members are made of cannot change."""
    spec = new.spec
    causes = [*duplicates("spec.tolerations", [t.key for t in spec.tolerations], field="key")]
    if old is not None:
        fixed = [name for name in JobSpec.model_fields if name not in _MAY_CHANGE]
        for name in fixed:
            path = f"spec.{JobSpec.model_fields[name].alias or name}"
            causes += unchangeable(path, new=getattr(spec, name), old=getattr(old.spec, name), why=_WHY)
        return causes
    causes += label_problems(new.metadata.name)
    if bool(spec.script) == bool(spec.command):
        causes.append(Cause("spec.script", "either a script or a command, and not both"))
    size = len(spec.script.encode())
    if size > SCRIPT_BYTES_MAX or size * spec.members > SCRIPTS_BYTES_MAX:
        most = min(SCRIPT_BYTES_MAX, SCRIPTS_BYTES_MAX // spec.members)
        causes.append(Cause("spec.script", f"{size} bytes; {most} at most with {spec.members} members"))
    if spec.topology.segment and spec.members % spec.topology.segment:
        causes.append(Cause("spec.topology.segment", f"{spec.members} members do not come in such blocks"))
    return [*causes, *_environment(spec.env), *_subnet(spec.subnet)]


def _environment(env: Mapping[str, str]) -> Iterator[Cause]:
    for name in env:
        if not _VARIABLE.fullmatch(name):
            yield Cause(f"spec.env[{name[:63]}]", "must be a name of letters, digits and _, no digit first")
        elif name in OURS or name.startswith(PREFIX):
            yield Cause(f"spec.env[{name}]", "is told to each member by the platform")
        elif _LOADER.fullmatch(name):
            yield Cause(f"spec.env[{name}]", "is obeyed before the member is behind its walls; set it in the script")


def _subnet(text: str) -> Iterator[Cause]:
    try:
        if text:
            ipaddress.ip_network(text)
    except ValueError:
        yield Cause("spec.subnet", "must be a network as 10.9.0.0/16")
