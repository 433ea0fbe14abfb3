"""Forms of our pages: what somebody wrote, and what came of it, shown on the page where it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl

from starlette.requests import Request

from bessemer.core.errors import BessemerError, Conflict, Invalid, Malformed
from bessemer.portal.visit import body_of

_FIELD_MAX = 1024
_FIELDS_MAX = 24
_BYTES_MAX = 16 << 10


@dataclass(frozen=True, slots=True)
class Said:
    """Above a page, once: what was refused (with what was ``written``, to be mended), or a ``secret`` that is shown now
    and never again, of ``name``."""

    title: str = ""
    text: str = ""
    written: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    secret: str = ""
    name: str = ""
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Field of the form → what is wrong with it, where that is known."""


NOTHING = Said()


async def read(request: Request) -> dict[str, str]:
    """The fields, cut to what anybody would write. Raises TooLarge, Malformed."""
    data = await body_of(request, limit=_BYTES_MAX)
    try:
        fields = parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError as error:
        raise Malformed(f"a form has at most {_FIELDS_MAX} fields") from error
    return {name: value[:_FIELD_MAX].strip() for name, value in fields}


class Halfway(Conflict):
    """The second of two writes was refused, and the first one stands. The message says what stands."""


def refused(error: BessemerError, written: Mapping[str, str], *, fields: Mapping[str, str] | None = None) -> Said:
    """What the api said, in its words; ``fields`` are those of the form, by the beginning of their path in the object:
    what is said of one stands beside it."""
    halfway = isinstance(error, Halfway)
    title = "This was done halfway" if halfway else "This was refused, and nothing was changed"
    beside = dict(_beside(error, fields or {}))
    return Said(title, error.message, {} if halfway else dict(written), fields=beside)


def _beside(error: BessemerError, fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for cause in error.causes if isinstance(error, Invalid) else ():
        name = next((fields[path] for path in fields if cause.field.startswith(path)), "")
        if name:
            yield name, cause.message


def words(text: str) -> list[str]:
    """``a, b c`` → ``[a, b, c]``."""
    return text.replace(",", " ").split()
