"""JSON from a model's folder: bounded in bytes, depth and values before it is parsed, and no name in it twice."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

from bessemer.drivers.weights.protocol import refused, shown

DEPTH_MAX = 32
VALUES_MAX = 1_000_000

# A string that does not end is one to the end: else each of its quotes would be tried as a beginning.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_REST = bytes(byte for byte in range(256) if byte not in b"{}[],")
_STEPS = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1, ord(","): 0}


def parse(raw: bytes, *, what: str) -> dict[str, Any]:
    """The object. Raises DriverError ``WeightsRefused``."""
    marks = _STRINGS.sub(b"", raw).translate(None, _REST)
    if len(marks) > VALUES_MAX:
        raise refused(f"{what} has more than {VALUES_MAX} values")
    if max(accumulate(_STEPS[mark] for mark in marks), default=0) > DEPTH_MAX:
        raise refused(f"{what} is nested deeper than {DEPTH_MAX}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise refused(f"{what} says {shown(name)} twice")
            found[name] = value
        return found

    try:
        value = json.loads(raw.decode(), object_pairs_hook=once, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise refused(f"{what} is no JSON") from None
    if not isinstance(value, dict):
        raise refused(f"{what} is no JSON object")
    return value
