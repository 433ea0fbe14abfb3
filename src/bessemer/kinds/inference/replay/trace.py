"""Traces of requests: when each came, how much it read and wrote.

Two forms are read, each as it is published: CSV with ``TIMESTAMP,ContextTokens,GeneratedTokens`` (Azure LLM inference
traces, of Patel et al.: Splitwise, ISCA 2024), and JSON lines with ``timestamp`` in milliseconds, ``input_length``,
``output_length`` (Mooncake, FAST 2025). Which of them it is, is told by the first line.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

import orjson

from bessemer.core.errors import Invalid

_CSV = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_JSON = ("timestamp", "input_length", "output_length")
TOKENS_MAX = 1 << 24
REQUESTS_MAX = 10_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: ``at`` in seconds from the first."""

    at: float
    reads: int
    writes: int


def read(lines: Iterable[str], *, file: str) -> Sequence[Asked]:
    """All of a trace, in order of time. Raises Invalid with the line that makes no sense."""
    rest = iter(lines)
    first = next((line for line in rest if line.strip()), "")
    if not first:
        raise Invalid(f"{file}: the file is empty")
    if first.lstrip("\ufeff \t").startswith("{"):
        found = list(_json_lines(chain([first], rest), file=file))
    else:
        found = list(_csv_lines(first, rest, file=file))
    if not found:
        raise Invalid(f"{file}: there is no request in it")
    found.sort(key=lambda one: one.at)
    begin = found[0].at
    return [Asked(one.at - begin, one.reads, one.writes) for one in found]


def thickened(asked: Sequence[Asked], times: int, *, seed: int = 42) -> Sequence[Asked]:
    """So many times as many: copies that come within some seconds of the first, as they would of more people who do the
    same. What rises and falls over minutes rises and falls so still."""
    if times <= 1:
        return asked
    draw = random.Random(seed)
    copies = (
        Asked(max(0.0, one.at + (draw.uniform(-_APART, _APART) if n else 0.0)), one.reads, one.writes)
        for one in asked
        for n in range(times)
    )
    return sorted(copies, key=lambda one: one.at)


_APART = 15.0


def _csv_lines(first: str, rest: Iterator[str], *, file: str) -> Iterator[Asked]:
    head = [name.strip().lstrip("\ufeff") for name in next(csv.reader([first]))]
    lacking = [name for name in _CSV if name not in head]
    if lacking:
        said = f"lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
        raise Invalid(f"{file}: this is neither {','.join(_CSV)} nor JSON lines with {', '.join(_JSON)}: it {said}")
    at, reads, writes = (head.index(name) for name in _CSV)
    try:
        for number, row in enumerate(csv.reader(rest), 2):
            if not row:
                continue
            if len(row) <= max(at, reads, writes):
                raise Invalid(f"{file}, line {number}: it has {len(row)} columns, and the first line names {len(head)}")
            place = f"{file}, line {number}"
            yield _asked(_moment(row[at], place), row[reads], writes=row[writes], place=place, number=number)
    except csv.Error as error:
        raise Invalid(f"{file}: {error}") from error


def _json_lines(lines: Iterable[str], *, file: str) -> Iterator[Asked]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"{place}: this is no JSON: {error}") from error
        if not isinstance(said, dict) or any(name not in said for name in _JSON):
            raise Invalid(f"{place}: a request has {', '.join(_JSON)}")
        at = said["timestamp"]
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e15:
            raise Invalid(f"{place}: timestamp is milliseconds, not {str(at)[:40]!r}")
        yield _asked(at / 1000.0, said["input_length"], writes=said["output_length"], place=place, number=number)


def _asked(at: float, reads: object, *, writes: object, place: str, number: int) -> Asked:
    if number > REQUESTS_MAX:
        raise Invalid(f"{place}: no more than {REQUESTS_MAX:,} requests are replayed")
    return Asked(at, _tokens(reads, place), max(1, _tokens(writes, place)))


def _tokens(said: object, place: str) -> int:
    try:
        count = int(said) if isinstance(said, str | int) and not isinstance(said, bool) else -1
    except ValueError:
        count = -1
    if not 0 <= count <= TOKENS_MAX:
        raise Invalid(f"{place}: {str(said)[:40]!r} is no number of tokens")
    return count


def _moment(said: str, place: str) -> float:
    # Seven digits of a second are more than Python reads.
    head, _, fraction = said.strip().partition(".")
    try:
        when = datetime.fromisoformat(head)
        part = float(f"0.{fraction}") if fraction else 0.0
    except ValueError as error:
        raise Invalid(f"{place}: {said[:40]!r} is no time, as in 2023-11-16 18:15:46.6805900") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() + part
