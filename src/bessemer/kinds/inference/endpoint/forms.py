"""What an Endpoint may be: replicas of its own, a choice among endpoints, a service elsewhere. Exactly one of them; and
who is asked where it has nobody, and how its replicas are replaced. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel
from bessemer.kinds.fields import Name, Names, duplicates

Form = Literal["replicas", "backends", "external"]

BACKENDS_MAX = 16
FALLBACKS_MAX = 8
WEIGHT_MAX = 1000
DRAIN_SECONDS = 30

SECRET_MARK = "bessemer.dev/external-secret"
"""The annotation of an Endpoint that says that a secret was set for its service, and another one when that changes."""

HOSTS_MAX = 64
HostName = Annotated[
    str,
    StringConstraints(
        max_length=253,
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*(:[1-9][0-9]{0,4})?$",
    ),
]

_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~/-]{0,1000})?")


class WeightedEndpoint(ApiModel):
    """One of the endpoints that answer for another, and how often."""

    endpoint: Annotated[Name, Names("Endpoint")] = Field(description="Name of an Endpoint of the same project.")
    weight: int = Field(
        1, ge=0, le=WEIGHT_MAX, description="Its part of the requests, of the sum of all weights; 0: none."
    )


class External(ApiModel):
    """A service that speaks OpenAI's API, elsewhere. What it wants to be shown is sealed, and not in the spec."""

    url: str = Field(max_length=2048, description="What stands before /chat/completions: https://HOST/v1.")
    model: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,253}$")] = Field(
        description="What it calls the model."
    )
    context_tokens: int = Field(
        2048, ge=64, le=1 << 24, description="The most tokens of a request with its answer: by it a budget is held."
    )


class Addresses(ApiModel):
    """From where images and sound are fetched for a request that names them by their address. The gateway fetches
    them; no engine dials anybody."""

    hosts: list[HostName] = Field(
        max_length=HOSTS_MAX,
        description="Names of hosts, as images.example.org, or HOST:PORT; they are asked over https.",
    )


class Update(ApiModel):
    """How replicas are replaced by those of another revision."""

    max_surge: int = Field(1, ge=0, le=10_000, description="Replicas that there may be more than are wanted meanwhile.")
    max_unavailable: int = Field(
        0, ge=0, le=10_000, description="Replicas that may be missing of those that are wanted meanwhile."
    )
    drain_seconds: int = Field(
        DRAIN_SECONDS,
        ge=0,
        le=3600,
        description="For so long a replica that is replaced goes on with what it answers; new requests go to others.",
    )


def problems(
    name: str,
    *,
    form: Form | None,
    backends: Sequence[WeightedEndpoint],
    external: External | None,
    fallbacks: Sequence[str],
) -> Iterator[Cause]:
    """What the schema cannot say of them. ``form`` None is none or several."""
    if form is None:
        yield Cause("spec", "must say one of these, and one alone: model and flavor; backends; external")
    others = [one.endpoint for one in backends]
    yield from duplicates("spec.backends", others, field="endpoint")
    yield from duplicates("spec.fallbacks", fallbacks)
    for index, other in enumerate(others):
        if other == name:
            yield Cause(f"spec.backends[{index}].endpoint", "is this endpoint itself")
    for index, other in enumerate(fallbacks):
        if other == name:
            yield Cause(f"spec.fallbacks[{index}]", "is this endpoint itself")
    if backends and not any(one.weight for one in backends):
        yield Cause("spec.backends", "have no weight: nobody would be asked")
    if external is not None:
        yield from _of_url(external.url)


def _of_url(url: str) -> Iterator[Cause]:
    path = "spec.external.url"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        yield Cause(path, "is no URL")
        return
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(host) or port == 0:
        yield Cause(path, "must be https://HOST[:PORT][/PATH]")
    elif "@" in parts.netloc or parts.query or parts.fragment or url.endswith(("?", "#")):
        yield Cause(path, "must have no user, query or fragment: what it wants to be shown is set apart, and sealed")
    elif not _PATH.fullmatch(parts.path) or ".." in parts.path.split("/"):
        yield Cause(path, "must have a path of plain words, as /v1")


def update_problems(update: Update) -> Iterator[Cause]:
    """A rollout that could never begin."""
    if not update.max_surge and not update.max_unavailable:
        yield Cause("spec.update", "must let one be more, or one be missing: maxSurge and maxUnavailable are both 0")


def address_problems(addresses: Addresses | None) -> Iterator[Cause]:
    """Hosts that are no names."""
    hosts = addresses.hosts if addresses is not None else []
    yield from duplicates("spec.addresses.hosts", hosts)
    for index, said in enumerate(hosts):
        host, _, port = said.partition(":")
        last = host.rpartition(".")[2]
        if last.isdigit() or last.startswith("0x"):
            yield Cause(f"spec.addresses.hosts[{index}]", "must be a name: an address says nothing of who is there")
        elif port and (int(port) > 65535 or int(port) == 443):
            yield Cause(f"spec.addresses.hosts[{index}]", "must have no port, or one that is not https's own, 443")
