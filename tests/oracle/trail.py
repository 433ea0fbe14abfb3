"""A second implementation of who checks a file of the audit trail: the text of `docs/audit.md`, and nothing of ours.

`check` reads the lines and answers what is wrong with them in a word and a row, or None. Ed25519 is RFC 8032 on plain
integers, so that not even the library of signatures is shared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

FIELDS = ("id", "at", "writer", "verb", "key", "uid", "allowed", "reason", "request_id", "source")

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]
"""Extended coordinates: x = X/Z, y = Y/Z, x·y = T/Z."""


def check(lines: Iterable[str | bytes], *, key: str) -> tuple[str, int] | None:
    """``key`` is the public key, hexadecimal. Answers what is wrong (row, tenant, head, signature, cut) and where."""
    said = [json.loads(line) for line in lines]
    first = said[0]
    number, digest = first["after"], first["digest"]
    missing = None
    for one in said[1:]:
        if "head" not in one:
            if one["id"] != number + 1 or one["digest"] != row_digest(digest, one):
                return ("row", one["id"])
            if one["tenant"] != tenant(one["key"]) and (one["tenant"] or one["change"]):
                return ("tenant", one["id"])
            number, digest = one["id"], one["digest"]
            continue
        head = one["head"]
        words = b"bessemer audit head 1\n" + compact([head["kind"], head["id"], head["digest"], head["at"]])
        if head["key"] != key or not signed(bytes.fromhex(key), words, bytes.fromhex(head["signature"])):
            return ("signature", head["id"])
        if head["id"] > number:
            missing = missing or head["id"]
        elif head["id"] != number or head["digest"] != digest:
            return ("head", head["id"])
    return ("cut", number + 1) if missing else None


def row_digest(before: str, row: dict[str, Any]) -> str:
    values = [before, *(row[name] for name in FIELDS)]
    if row["change"]:
        values.append(row["change"])
    return hashlib.sha256(compact(values)).hexdigest()


def tenant(key: str) -> str:
    kind, place = key.split(" ", 1)
    project = place.split("/", 1)[0] if "/" in place else ""
    if kind == "Tenant":
        return place
    owner, dashes, rest = (place if kind == "Project" else project).partition("--")
    return owner if dashes and rest else ""


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# --- Ed25519 --------------------------------------------------------------------------------------------------------


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    a, r, s = _point(public), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or len(signature) != 64:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left, right = _times(BASE, s), _add(r, _times(a, h))
    return not any((left[i] * right[2] - right[i] * left[2]) % P for i in (0, 1))


def _x(y: int, sign: int) -> int | None:
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def _point(data: bytes) -> Point | None:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = _x(y, sign) if y < P else None
    return None if x is None else (x, y, 1, x * y % P)


def _add(one: Point, two: Point) -> Point:
    a = (one[1] - one[0]) * (two[1] - two[0]) % P
    b = (one[1] + one[0]) * (two[1] + two[0]) % P
    c, d = 2 * one[3] * two[3] * D % P, 2 * one[2] * two[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(point: Point, number: int) -> Point:
    total: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = _add(total, point)
        point, number = _add(point, point), number >> 1
    return total


_BASE_Y = 4 * pow(5, P - 2, P) % P
BASE: Point = (X := _x(_BASE_Y, 0) or 0, _BASE_Y, 1, X * _BASE_Y % P)
