"""Numbers, times and states as the portal writes them: the filters of its templates.

Money ``€ 1,487.44`` with a true minus, sizes with their unit, durations in the largest units that decide anything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from bessemer.core.units import MICRO
from bessemer.portal.facts import Fact, HostFact

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "SEK": "kr", "CHF": "CHF"}

TONES = {
    "Ready": "ok",
    "Running": "ok",
    "Serving": "ok",
    "Active": "ok",
    "Succeeded": "ok",
    "Passed": "ok",
    "Pending": "waiting",
    "Preparing": "waiting",
    "Booting": "waiting",
    "Starting": "waiting",
    "Stopping": "waiting",
    "Terminating": "waiting",
    "Degraded": "stuck",
    "Stuck": "stuck",
    "Unknown": "stuck",
    "Silent": "stuck",
    "Lost": "failed",
    "Failed": "failed",
    "Stopped": "free",
    "Disabled": "free",
    "Expired": "free",
    "Skipped": "free",
    "Cordoned": "cordoned",
    "Fenced": "cordoned",
}
"""A state's word → its tone: which shape and colour stand beside the word."""


def money(micro: int, currency: str = "EUR", *, digits: int = 2) -> str:
    """``1487440000`` → ``€ 1,487.44``; below a cent all six digits, unless the caller says how many decide."""
    value = Decimal(micro) / MICRO
    if digits == 2 and micro and abs(value) < Decimal("0.01"):
        digits = 6
    sign = "−" if value < 0 else ""
    return f"{sign}{SYMBOLS.get(currency, currency)} {abs(value):,.{digits}f}"


def duration(seconds: float) -> str:
    """``95`` → ``1 min 35 s``, ``2520`` → ``42 min``, ``0.012`` → ``12 ms``: what decides, no more."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 10 and rest:
        return f"{minutes} min {rest} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def bound(seconds: float) -> str:
    """A deadline: ``300`` → ``5 min``, ``90`` → ``90 s``."""
    return duration(seconds) if seconds >= 120 and seconds % 60 == 0 else f"{seconds:.0f} s"


def since(then: float, now: float) -> str:
    """``4 s``, ``8 min``, ``3 h``: how long ago, in one unit, as lists show it."""
    passed = max(0.0, now - then)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= size:
            return f"{int(passed // size)} {unit}"
    return f"{int(passed)} s"


def utc(seconds: float, form: str = "%-d %b %H:%M:%S") -> str:
    """``1750000000`` → ``15 Jun 15:06:40``. The head of the list says that it is UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def iso(seconds: float) -> str:
    """For ``<time datetime>``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def gib(count: int) -> str:
    """Bytes as GiB, at most one decimal: ``0.3 GiB``, ``2,048 GiB``; below a hundredth of it as MiB."""
    size = count / (1 << 30)
    if size < 1:
        return f"{count / (1 << 20):,.0f} MiB"
    return f"{size:,.0f} GiB" if size >= 10 or size == int(size) else f"{size:.1f} GiB"


def cores(milli: int) -> str:
    """``2000`` → ``2``, ``500`` → ``0.5``."""
    return f"{milli / 1000:g}"


def count(number: float) -> str:
    """``12345`` → ``12,345``."""
    return f"{number:,.0f}"


def some(number: int, noun: str) -> str:
    """``(1, "host")`` → ``1 host``, ``(3, "host")`` → ``3 hosts``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def place(project: str) -> str:
    """``acme--research`` → ``acme / research``."""
    return project.replace("--", " / ", 1)


def device(model: str) -> str:
    """``NVIDIA H100 80GB HBM3`` → ``H100 80GB``: as one says it."""
    words = [
        w
        for w in model.replace("-", " ").split()
        if w.upper() not in {"NVIDIA", "AMD", "INSTINCT", "TESLA", "SXM", "SXM5", "PCIE"}
    ]
    return " ".join(w for w in words if not w.upper().startswith("HBM")) or model


def state(fact: Fact) -> str:
    """The word that a list shows: Stuck before the phase, and a host's own words."""
    if fact.stuck:
        return "Stuck"
    if isinstance(fact, HostFact):
        return host_state(fact)
    if fact.deleting and fact.phase not in {"Terminating", "Failed"}:
        return "Terminating"
    return fact.phase or "Pending"


def host_state(host: HostFact) -> str:
    """Fenced, Silent, Cordoned, else the phase."""
    if host.fenced:
        return "Fenced"
    if host.reachable is False:
        return "Silent"
    return "Cordoned" if host.cordoned else host.phase or "Pending"


def tone(word: str) -> str:
    """``ok``, ``waiting``, ``stuck``, ``failed``, ``free`` or ``cordoned``."""
    return TONES.get(word, "waiting")


def initials(name: str) -> str:
    """``ada.example`` → ``AE``: at most two letters."""
    words = [w for w in name.replace("@", " ").replace(".", " ").replace("-", " ").replace("_", " ").split() if w]
    return "".join(w[0] for w in words[:2]).upper() or "?"
