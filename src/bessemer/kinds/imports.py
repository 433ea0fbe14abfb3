"""How content comes in: what kinds share whose objects are content with a digest (Image, Model).

An import runs in the background (`context.Importer`); each turn looks at it once. Invariants: an object is Ready only
while content of its digest is here; where a digest is expected, nothing else is ever taken for it; what the control
side has lost is brought again. What is brought, and whence, is the kind's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Fail, Outcome, Status, Wait
from bessemer.core.units import show_bytes
from bessemer.kinds.context import Context, Imported

DEADLINES: Mapping[str, float] = {"Pending": 120.0, "Importing": 900.0}
"""That of ``Importing`` counts from the last progress: a slow network is no reason to be stuck."""

RETRY_SECONDS, LOOK_SECONDS = 15.0, 0.5

REFUSALS = frozenset(("WeightsRefused", "PickleRefused", "FilesUnclear", "AddressRefused"))
"""Why content is not taken that came as it should."""


class ContentStatus(Status):
    phase: Literal["Pending", "Importing", "Ready", "Failed"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    digest: str = Field("", description="sha256:… of the content, once it was there.")
    size_bytes: int = Field(0, description="Size of the content.")
    progress_percent: int = Field(0, description="How far the import is.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is brought: with the digest ``expected``, "" for any. ``begin`` begins the import or looks at it, ``name``
    is what the importer calls its progress. What it says under ``label`` stands in the status. ``at_first`` is shown
    while there is no progress; ``if_other`` helps where it is another content than expected, ``if_refused`` where it is
    none that is taken. ``found`` are further fields of the status, out of what came; while one that stood there before
    them is not ``known``, it is asked for anew. ``parts`` are digests of what must be here besides."""

    expected: str
    begin: Callable[[], Awaitable[Imported | None]]
    name: str
    label: str
    at_first: str
    remedy: str
    if_other: str
    if_refused: str = ""
    found: Callable[[Imported], Mapping[str, Any]] = lambda _: {}
    known: bool = True
    parts: tuple[str, ...] = ()


async def bring(ctx: Context, status: ContentStatus, *, source: Source) -> Outcome:
    """One look: it is here, is on its way, or what keeps it away."""
    if status.digest != source.expected:
        status = status.model_copy(update={"digest": "", "size_bytes": 0, source.label: ""})
    elif status.digest and source.known and await ctx.importer.holds(status.digest, *source.parts):
        return _here(status, source.label)
    try:
        content = await source.begin()
        if content is None:
            return _importing(ctx, status, source=source)
        if source.expected not in ("", content.digest):
            raise DriverError("DigestMismatch", f"what came is {content.digest}, not {source.expected}")
    except DriverError as error:
        if error.reason not in REFUSALS and error.reason != "DigestMismatch":
            return _importing(ctx, status, source=source, error=error)
        # Trying again would bring the same.
        remedy = source.if_refused if error.reason in REFUSALS else source.if_other
        status = status.model_copy(update={"phase": "Failed", "message": error.message})
        return Fail(reason=error.reason, message=error.message, status=status, again=3600.0, remedy=remedy)
    found = {"digest": content.digest, "size_bytes": content.size_bytes, **source.found(content)}
    return _here(status.model_copy(update={**found, source.label: content.labels.get(source.label, "")}), source.label)


def _here(status: ContentStatus, label: str) -> Outcome:
    status = status.model_copy(update={"phase": "Ready", "progress_percent": 100, "message": ""})
    return Done(
        status=status, message=f"{show_bytes(status.size_bytes)}, {label} {getattr(status, label) or 'unknown'}"
    )


def _importing(ctx: Context, status: ContentStatus, *, source: Source, error: DriverError | None = None) -> Outcome:
    progress = ctx.importer.progress(source.name)
    reason, again = (error.reason, RETRY_SECONDS) if error else ("Importing", LOOK_SECONDS)
    message = error.message if error else str(progress) or source.at_first
    update = {"phase": "Importing", "progress_percent": progress.percent or 0, "message": message}
    told, remedy = status.model_copy(update=update), source.remedy
    return Wait(reason=reason, message=message, status=told, again=again, done=progress.done, remedy=remedy)
