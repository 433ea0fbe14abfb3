"""What gateways say of endpoints whose prompts are logged: kept in memory, like their loads, by whoever leads the kind.

An Endpoint is looked at again when that begins or ends to fail; and of entries that are dropped, now and then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bessemer.core.loads import EndpointLog, LoadReport
from bessemer.core.resource import Key

TOLD_SECONDS = 60.0
"""Between two words of how many are dropped."""
DROPPING_SECONDS = 300.0
"""For which one that was dropped is told as the reason."""
DROPPING = "EntriesDropped"


@dataclass(slots=True)
class _Known:
    key: Key
    said: dict[str, EndpointLog] = field(default_factory=dict)
    """By gateway."""
    dropped: int = 0
    dropped_at: float | None = None
    told: str | None = None
    """The reason that its Endpoint was woken for, and how many were dropped then, and when."""
    told_dropped: int = 0
    told_at: float = 0.0

    def reason(self, now: float) -> str:
        said = next((log.reason for log in self.said.values() if log.reason), "")
        lately = self.dropped_at is not None and now - self.dropped_at < DROPPING_SECONDS
        return said or (DROPPING if lately else "")


class Logs:
    """Of one process."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def look(self, reports: Iterable[LoadReport], *, now: float) -> list[Key]:
        """Take what gateways say; the names of those of which there is something to be told."""
        heard: dict[str, dict[str, EndpointLog]] = {}
        for report in reports:
            for log in report.logs:
                heard.setdefault(log.uid, {})[report.holder] = log
        woken = []
        for uid, said in heard.items():
            log = next(iter(said.values()))
            known = self._known.setdefault(uid, _Known(Key("Endpoint", log.project, log.name)))
            if _take(known, said, now=now):
                woken.append(known.key)
        for uid in self._known.keys() - heard.keys():
            del self._known[uid]
        return woken

    def of(self, uid: str, *, now: float) -> tuple[str, str] | None:
        """How it stands, as (reason, words): reason "" where all is well, words of what is not, or "". None where no
        gateway has said."""
        known = self._known.get(uid)
        if known is None:
            return None
        failing = [log for log in known.said.values() if log.reason]
        words = [f"{len(failing)} of {len(known.said)} gateways: {failing[0].message}"] if failing else []
        if known.dropped:
            words.append(f"{known.dropped} entries were dropped since the gateways began")
        elif not failing and all(log.expires for log in known.said.values()):
            words.append("the bucket itself removes what is older, too")
        return known.reason(now), "; ".join(words)


def _take(known: _Known, said: dict[str, EndpointLog], *, now: float) -> bool:
    dropped = sum(log.dropped for log in said.values())
    if dropped > known.dropped and known.said:
        known.dropped_at = now
    known.said, known.dropped = said, dropped
    reason = known.reason(now)
    if reason == known.told and (dropped == known.told_dropped or now - known.told_at < TOLD_SECONDS):
        return False
    known.told, known.told_dropped, known.told_at = reason, dropped, now
    return True
