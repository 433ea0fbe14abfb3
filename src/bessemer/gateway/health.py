"""Whether a replica may be asked: what its last answers say of it. Pure: the time is given.

A circuit breaker for each replica. Closed: it is asked. It opens at once where no answer came (it could not be reached,
was silent, cut its stream, answered junk), and after `ERRORS_IN_A_ROW` answers of status 5xx, for an engine that fails
quickly is the least busy one for ever. It stays open for `REST_SECONDS`, twice as long for each time in a row. Then it
is half open: one request probes it, and no other is sent there before that one has ended; a whole answer closes it.

Sources: M. Nygard, Release It! (circuit breaker); Envoy's outlier detection (consecutive 5xx, ejection time that grows,
a share of all that errors alone may eject).
"""

from __future__ import annotations

from dataclasses import dataclass

REST_SECONDS = 2.0
REST_DOUBLINGS_MAX = 5
ERRORS_IN_A_ROW = 5
EJECTED_SHARE_MAX = 0.5
"""Of the replicas of an endpoint, by errors: what all of them answer with errors is no fault of any."""


@dataclass(slots=True)
class Health:
    """Of one replica. ``failures`` are the ejections in a row, ``errors`` answers of 5xx in a row; ``not_before`` is
    when it may be probed; ``probing``: somebody does."""

    failures: int = 0
    errors: int = 0
    not_before: float = 0.0
    probing: bool = False

    def ready(self, now: float) -> bool:
        """Whether another request may be sent there."""
        return not self.failures or (self.not_before <= now and not self.probing)

    def resting(self, now: float) -> bool:
        """Whether it is ejected and may not be probed yet."""
        return self.failures > 0 and now < self.not_before

    def probe(self) -> bool:
        """A request is sent there; whether it is one that decides. Who is told so says when it has ended."""
        if not self.failures or self.probing:
            return False
        self.probing = True
        return True

    def lost(self, now: float) -> None:
        """No answer came that is one."""
        self.not_before = now + REST_SECONDS * 2 ** min(self.failures, REST_DOUBLINGS_MAX)
        self.failures += 1
        self.errors = 0
        self.probing = False

    def erred(self, now: float, *, spared: bool) -> bool:
        """It answered with a status of 5xx; whether that ejects it. ``spared``: so many are that it may not be."""
        self.errors += 1
        if spared or (self.errors < ERRORS_IN_A_ROW and not self.failures):
            return False
        self.lost(now)
        return True

    def answered(self) -> None:
        """An answer of it was whole."""
        self.failures = self.errors = 0
        self.probing = False
