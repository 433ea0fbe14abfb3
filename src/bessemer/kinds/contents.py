"""Which content is in use: the digests that objects name. What none of them names any more may go, after a while.

Models and images name what they are of, in the status that the control side writes; a Claim's intent names all that its
host needs, for as long as the Claim stands. What people write (a label, a description) names nothing: it would keep
bytes that nobody pays for. Every kind that holds content belongs into `HOLDERS`; a test asks each schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import orjson

from bessemer.core.ports import Page, Scope
from bessemer.kinds.fields import at
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.image import Image
from bessemer.kinds.inference.model import Model

HOLDERS = (Image.KIND, Model.KIND, "ProjectModel")
"""Kinds whose status has a digest, and may have files with digests."""

_PAGE = 500
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


class Lists(Protocol):
    """What is needed of ``ports.Objects``."""

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page: ...


def of_holder(body: Mapping[str, Any]) -> Iterator[str]:
    """The digests that a Model or an Image names."""
    files: Iterable[Mapping[str, Any]] = at("status", "files", default=())(body)
    yield from (file["digest"] for file in files)
    if digest := at("status", "digest", default="")(body):
        yield digest
    # A project's names what it wants, which may be somebody else's: only what it got is its.
    if body.get("kind") == Model.KIND and (sha256 := at("spec", "sha256", default="")(body)):
        yield f"sha256:{sha256}"


def of_claim(body: Mapping[str, Any]) -> Iterator[str]:
    """Those that a Claim's intent names, whatever its kind calls them."""
    intent = orjson.dumps(at("spec", "intent", default={})(body))
    yield from (found.decode() for found in _DIGEST.findall(intent))


async def named(objects: Lists, *, but: str = "") -> frozenset[str]:
    """All of them but those of the object of that uid, at this moment or later. Raises what listing raises: half an
    answer would be a wrong one."""
    found: set[str] = set()
    for kind in HOLDERS:
        async for body in _bodies(objects, kind):
            if not but or body["metadata"]["uid"] != but:
                found.update(of_holder(body))
    # A Claim names what a Model named when it was taken: read last, it is missed by neither list.
    async for body in _bodies(objects, Claim.KIND):
        found.update(of_claim(body))
    return frozenset(found)


async def _bodies(objects: Lists, kind: str) -> Any:
    after = ""
    while True:
        page = await objects.list(Scope(kind=kind), limit=_PAGE, after=after)
        for stored in page.items:
            yield orjson.loads(stored.body)
        if not (after := page.next):
            return
