"""Quantities: bytes and micro-units of money as integers, and the words people write for them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MICRO = 1_000_000
SECONDS_PER_HOUR = 3600

_QUANTITY = re.compile(r"^([0-9]{1,18}(?:\.[0-9]{1,9})?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
_FACTOR = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "Ki": Decimal(KIB),
    "Mi": Decimal(MIB),
    "Gi": Decimal(GIB),
    "Ti": Decimal(TIB),
    "Pi": Decimal(1 << 50),
}


def quantity(text: str | int) -> Decimal:
    """Read a Kubernetes quantity: ``"1.5Gi"`` → 1610612736, ``"500m"`` → 0.5. Raises ValueError."""
    return _quantity(str(text))


@lru_cache(1024)
def _quantity(text: str) -> Decimal:
    """Read once: the same few stand in all bodies."""
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"not a quantity: {text[:40]!r} (write 2, 500m, 512Mi, 1.5Gi)")
    try:
        return Decimal(match[1]) * _FACTOR[match[2] or ""]
    except InvalidOperation as error:  # pragma: no cover - the pattern bounds the digits
        raise ValueError(f"not a quantity: {text[:40]!r}") from error


def parse_bytes(text: str | int) -> int:
    """``"512Mi"`` → 536870912. Raises ValueError where the result is no whole number of bytes."""
    value = quantity(text)
    if value != int(value):
        raise ValueError(f"not a whole number of bytes: {text!r}")
    return int(value)


def show_bytes(count: int) -> str:
    """``536870912`` → ``512 MiB``: binary units, at most one decimal."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def show_money(micro: int, currency: str) -> str:
    """``1487440000`` → ``EUR 1,487.44``; below one of the currency all digits are kept: there they decide."""
    value = Decimal(micro) / MICRO
    if micro and abs(value) < 1:
        return f"{currency} {value:.6f}"
    return f"{currency} {value:,.2f}"


def show_price(micro: int, currency: str) -> str:
    """``12500`` → ``EUR 0.0125``: a unit price with every digit that it has, and at least two decimals."""
    whole, part = divmod(micro, MICRO)
    digits = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{currency} {whole:,}.{digits}"


def show_duration(seconds: float) -> str:
    """``95`` → ``1m35s``: the two largest units, as kubectl shows ages."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2])
