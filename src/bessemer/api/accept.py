"""What a client takes, and what it likes best of that: the headers ``Accept`` and ``Accept-Encoding``.

Both are lists of names with a quality from 0 (never) to 1. What cannot be read of them is passed over; a header that
is longer than any honest one says nothing. Reading takes time linear to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bessemer.api.errors import Unacceptable

HEADER_BYTES_MAX = 4096
_SHAPE = ("g", "v", "as")
_GZIP = frozenset({"gzip", "x-gzip"})
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
"""As RFC 9110 writes it."""


class Clause(NamedTuple):
    """One name of a list. ``parameters`` are those but ``q``."""

    name: str
    parameters: Mapping[str, str]
    quality: float


def clauses(header: str) -> list[Clause]:
    """What is taken, best first; of equal quality what is said in full before what is said by ``*``, as Go's clients
    and servers have it. What is refused stays, at the end, with quality 0."""
    if len(header) > HEADER_BYTES_MAX:
        return []
    found = [clause for part in header.split(",") if (clause := _clause(part)) is not None]
    return sorted(found, key=lambda clause: (-clause.quality, "*" in clause.name))


def preferred(header: str, offers: Sequence[str]) -> str:
    """The offer that is liked best; the first without a shape (``;as=``) where anything will do.

    An offer is a media type, with the parameters g, v and as that say its shape. Raises Unacceptable.
    """
    liked = clauses(header)
    if not liked:
        return offers[0]
    refused = {clause.name for clause in liked if clause.quality <= 0}
    for clause in liked:
        for offer in offers:
            if clause.quality > 0 and offer not in refused and _fits(clause, offer):
                return offer
    media = ", ".join(dict.fromkeys(offer.partition(";")[0] for offer in offers))
    raise Unacceptable(f"only the following media types are accepted: {media}")


def takes_gzip(headers: Iterable[str]) -> bool:
    """Whether ``Accept-Encoding``, in one header or several, asks for gzip and for nothing that we could send rather:
    saying nothing is no asking."""
    quality = {clause.name: clause.quality for clause in reversed(clauses(",".join(headers)))}
    packed = max((quality[name] for name in _GZIP if name in quality), default=quality.get("*", 0.0))
    return packed > 0 and packed >= quality.get("identity", 0.0)


def _clause(part: str) -> Clause | None:
    name, *rest = (piece.strip() for piece in part.split(";"))
    if not name:
        return None
    parameters = {key.strip().lower(): value.strip() for key, _, value in (piece.partition("=") for piece in rest)}
    quality = _quality(parameters.pop("q", "1"))
    return None if quality is None else Clause(name.lower(), parameters, quality)


def _quality(text: str) -> float | None:
    return float(text) if _QUALITY.fullmatch(text) else None


def _fits(clause: Clause, offer: str) -> bool:
    media, *shape = offer.split(";")
    wanted = {key: value for key, value in clause.parameters.items() if key in _SHAPE and "as" in clause.parameters}
    said = dict(piece.split("=", 1) for piece in shape)
    if clause.name in ("*", "*/*", f"{media.partition('/')[0]}/*"):
        return not said and not wanted
    return clause.name == media and wanted == said
