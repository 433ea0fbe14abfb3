"""The header Warning: what a client is told beside its answer, as RFC 7234 quotes it."""

from __future__ import annotations

from collections.abc import Iterable

from bessemer.api.names import plain
from bessemer.api.shown import Shown

WARNING_MAX = 4096


def warning(texts: Iterable[str]) -> str:
    """The header Warning, as RFC 7234 quotes it: the object is written by then, so no text may break the answer, and
    not more is told than those take who read headers."""
    whole = ""
    for text in texts:
        quoted = plain(text).replace("\\", "\\\\").replace('"', '\\"')
        longer = f'{whole}{", " if whole else ""}299 - "{quoted}"'
        if len(longer) > WARNING_MAX:
            break
        whole = longer
    return whole


def deprecation(resource: Shown | None) -> list[tuple[bytes, bytes]]:
    """The header by which each client of an old version is told so."""
    told = resource.older.deprecated if resource is not None and resource.older is not None else ""
    return [(b"warning", f'299 - "{told}"'.encode())] if told else []
