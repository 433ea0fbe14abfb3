"""The policy that decides how many replicas an Endpoint has: by what is coming when a replica that is asked for now
would be there, and by what one replica can do so that the target still holds. Pure; it remembers what it saw.

**What one can do.** Where times are the target, it is learnt: how fast a replica is at which load (`learning.Pace`),
and how far that may be trusted (`learning.Trust`; what misses while there are fewer replicas than were wanted says
nothing of that). Where none is, a share of its slots is what it can do.

**What is coming** is what came lately, over a span as long as a start takes; as it rose between the last such spans, it
is taken to rise on; and by how much more it was than was foreseen, for all but one in twenty looks, is learnt, too
(`learning.Lead`). What comes at this moment is answered at once, where it is more and no accident of a few requests.
What waits already has to be answered beside it.

**It scales up at once, and down to the most of what it would have wanted for a while**: a replica that is let go of and
asked for again costs its start, in which it is paid for and answers nothing, so it is kept idle for about as long as
that (ski rental: Karlin et al., 1988). Where those that were let go of were missed soon, it keeps longer.

**Rushes that are shorter than a start** are over when what was asked for answers. While more than one in twenty missed
the target for want of replicas (an error budget: Beyer et al.: Site Reliability Engineering, 2016), as many stay as
nine of ten requests of the last half hour would have needed when they came.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from bessemer.kinds.inference.scaling.learning import MISSED_SHARE, Lead, Mean, Pace, Rate, Rushes, Trust
from bessemer.kinds.inference.scaling.sight import Sight, Verdict
from bessemer.kinds.inference.scaling.spec import BUSY_SHARE, CACHE_SHARE, Scale

_LEARNT_TOKENS = 2000.0
"""From which on a pace is believed."""
_MIX_REQUESTS = 1000.0
"""After which what a request reads and writes counts half."""
_JUDGED_ANSWERS = 2000.0
"""After which one that missed the target counts half."""
_NEED_LEAST = 0.3
_STALE_SECONDS = 60.0
"""Between two sights, from which on what lies between is unknown."""
_SLOWNESS = 0.5
"""Starts, in which trust would fall by a factor of e if everything missed the target."""
_SURE = 2.0
"""Standard deviations of arrivals by chance that a rise is above before it is one."""
_SPAN_LEAST, _SPAN_MOST = 30.0, 120.0
_LATELY = (10.0, 20.0)
_KEPT_LEAST_SECONDS, _KEPT_MOST_SECONDS = 60.0, 1800.0
_KEPT_LONGER = 2.0
"""By which it keeps longer what was missed, each time."""
_SHORT_ANSWERS = 4000.0
"""After which one that missed the target for want of replicas counts half."""
_RUSH_SHARE = 0.9
"""Of requests, for which replicas stay while too many missed so."""
_CLEARED_SECONDS = 30.0
"""In which what waits is to be answered, once there are replicas for it."""
_AT_ONCE, _AT_ONCE_MORE = 2.0, 4
"""So many times as many as there are may be asked for at a time, and a few."""


@dataclass(frozen=True, slots=True)
class Means:
    """What is known of a replica: its ``slots``; about how long it takes until it answers."""

    slots: int
    start_seconds: float = 30.0


class Scaler:
    """Of one endpoint."""

    def __init__(self, scale: Scale, means: Means) -> None:
        self.scale = scale
        self.means = means
        self._pace, self._trust, self._rate, self._lead = Pace(), Trust(), Rate(), Lead()
        self._reads, self._writes = Mean(_MIX_REQUESTS), Mean(_MIX_REQUESTS)
        self._busy, self._reading = Mean(2.0), Mean(2.0)
        self._late, self._short = Mean(_JUDGED_ANSWERS), Mean(_SHORT_ANSWERS)
        self._rushes = Rushes()
        self._last: Sight | None = None
        self._asked_at: float | None = None
        self._strained = -math.inf
        """When there was last less than what came would have needed."""
        self._wished: deque[tuple[float, int]] = deque()
        self._keep = 1.0
        """By which it keeps longer than for a start."""
        self._let_go: tuple[float, int] = (-math.inf, 0)
        """When it last let go of some, and from how many."""

    def decide(self, sight: Sight, *, present: int) -> Verdict:
        """How many, and why. ``present`` is what was wanted last, and stays where nothing is known."""
        self._learn(sight)
        wished, why = self._wish(sight)
        wished, why = self._roomy(sight, wished, why=why)
        wanted, why = self._steady(sight.at, wished, present=present, why=why)
        return self._bounded(sight, wanted, why=why)

    @property
    def kept_seconds(self) -> float:
        """For which what is not needed stays."""
        keep = max(_KEPT_LEAST_SECONDS, self.means.start_seconds)
        return min(max(keep, _KEPT_MOST_SECONDS), keep * self._keep)

    @property
    def _need(self) -> float:
        """How far what misses the target uses up what may miss it: 1 and more is all."""
        return min(1.0, max(_NEED_LEAST, self._late.value() / MISSED_SHARE))

    # --- what is learnt ---------------------------------------------------------------------------------------------

    def _learn(self, sight: Sight) -> None:
        last, self._last = self._last, sight
        if self._asked_at is None or (sight.starting and not sight.ready):
            # Nobody knows, or whoever asked has not been answered yet: as if it had just been asked.
            self._asked_at = sight.at
        if last is None or sight.at <= last.at:
            return
        seconds, new = sight.at - last.at, sight.sums - last.sums
        if new.counted_anew or seconds > _STALE_SECONDS:
            return
        if new.arrived or sight.busy or sight.waiting:
            self._asked_at = sight.at
        self._rate.take(sight.at, seconds=seconds, count=new.arrived)
        self._rushes.take(seconds=seconds, count=new.arrived)
        self._reads.take(new.input_tokens, new.answered)
        self._writes.take(new.output_tokens, new.answered)
        ready = max(1, last.ready)
        # Answers that ended now were made at the load since they began.
        took = max(2.0, seconds, self._writes.value() * self._pace.typical)
        self._busy.half = self._reading.half = took
        self._busy.take(sight.busy / ready * seconds, seconds)
        self._reading.take(self._reads.value() * new.begun / ready, seconds)
        self._pace.take(self._busy.value(), self._reading.value(), seconds=new.paced_seconds, tokens=new.paced_tokens)
        can, _ = self._can()
        lately = self._rate.over(sight.at, _LATELY[0])
        if sight.waiting >= 1 or (can is not None and lately is not None and lately > can * ready):
            self._strained = sight.at
        missed = max(new.late, new.slow * (new.begun / new.paced if new.paced else 1.0))
        self._late.take(missed, new.begun)
        strained = sight.at - self._strained <= 2 * took
        self._short.take(missed if strained else 0.0, new.begun)
        if not strained:
            slowness = _SLOWNESS * max(_KEPT_LEAST_SECONDS, self.means.start_seconds)
            self._trust.take(seconds=seconds, answers=new.begun, missed=missed, slowness=slowness)

    # --- what is wanted ---------------------------------------------------------------------------------------------

    def _wish(self, sight: Sight) -> tuple[int, str]:
        rate = self._coming(sight)
        can, words = self._can()
        if rate is None or can is None:
            share = (self.scale.target.busy_share or BUSY_SHARE) * self.means.slots
            at_once = sight.busy + sight.waiting
            return math.ceil(at_once / share), f"{at_once:.0f} requests at a time"
        # Who waits is to be answered soon once a start is over, beside those who come then.
        over = sight.waiting / (self.means.start_seconds + _CLEARED_SECONDS)
        wished = math.ceil((rate + over) / can - 1e-9)
        behind = f", {sight.waiting:.0f} wait" if sight.waiting >= 1 else ""
        return wished, f"{rate:.2f} requests/s come{behind}, one replica answers {can:.2f} {words}"

    def _roomy(self, sight: Sight, wished: int, *, why: str) -> tuple[int, str]:
        """As many as leave room in the caches of keys and values, where more are wanted for that: an engine whose cache
        is full keeps requests waiting while it has slots (Kwon et al.: PagedAttention, SOSP 2023)."""
        most = self.scale.target.cache_share or CACHE_SHARE
        if sight.kv_share is None or sight.kv_share <= most:
            return wished, why
        needed = math.ceil(sight.ready * sight.kv_share / most - 1e-9)
        words = f"the caches of keys and values are {sight.kv_share:.0%} full, and {most:.0%} are meant"
        return (needed, words) if needed > wished else (wished, why)

    def _coming(self, sight: Sight) -> float | None:
        """Requests a second, by when a replica that is asked for now would answer."""
        now, start = sight.at, self.means.start_seconds
        span = min(_SPAN_MOST, max(_SPAN_LEAST, start))
        steady = self._rate.over(now, span)
        if steady is None:
            return None
        found = steady
        before = self._rate.over(now, span, ago=span)
        lately = [self._rate.over(now, seconds) for seconds in _LATELY]
        if before is not None and steady - before > _SURE * math.sqrt(max(steady, before) / span):
            rise, just_now = (steady - before) / span, lately[-1]
            # A rush that is over rises on in the mean of a span: only what comes just now shows whether it does.
            rises = just_now is None or just_now >= steady + rise * span / 2
            found = steady + rise * start if rises else max(steady, just_now or 0.0)
        found *= 1 + (self._lead.led(now, found, came=lately[-1], after=start) - 1) * self._need
        for seconds, rate in zip(_LATELY, lately, strict=True):
            if rate is not None:
                found = max(found, rate - _SURE * math.sqrt(max(rate, 1.0) / seconds))
        return max(found, self._rushes.rate(_RUSH_SHARE)) if self._short.value() > MISSED_SHARE else found

    def _can(self) -> tuple[float | None, str]:
        """Requests a second of one replica, and in which words."""
        target, slots = self.scale.target, self.means.slots
        if self._pace.seen < _LEARNT_TOKENS or not self._writes.weight:
            return None, ""
        reads, writes = self._reads.value(), self._writes.value()
        if target.timed:
            pace = target.inter_token_ms / 1000.0 if target.inter_token_ms else math.inf
            can = self._trust.share * self._pace.capacity(pace, reads=reads, writes=writes, slots=slots)
            return can, f"within the target (trusted {self._trust.share:.2f})"
        share = target.busy_share or BUSY_SHARE
        can = self._pace.capacity(math.inf, reads=reads, writes=writes, slots=max(1.0, share * slots))
        return can, f"with {share:.0%} of its slots busy"

    # --- how fast ---------------------------------------------------------------------------------------------------

    def _steady(self, now: float, wished: int, *, present: int, why: str) -> tuple[int, str]:
        """Up at once, by bounded steps; down after a while."""
        keep = self.kept_seconds
        self._wished.append((now, wished))
        while self._wished[0][0] < now - keep:
            self._wished.popleft()
        if wished > present:
            self._missed(now, present)
            return min(wished, max(math.ceil(_AT_ONCE * present), present + _AT_ONCE_MORE)), why
        wanted = min(present, max(one for _, one in self._wished))
        if wanted == present:
            return present, why
        if now - self._wished[0][0] < 0.9 * keep:
            return present, f"{why}; it is not known for long enough"
        at, count = self._let_go
        self._let_go = (now, max(present, count) if now - at < 4 * keep else present)
        return wanted, why if wanted == wished else f"{why}; {wanted} were wanted within the last {keep:.0f} s"

    def _missed(self, now: float, present: int) -> None:
        """More are asked for: whether some would be there, had it not let go of them."""
        at, count = self._let_go
        if count > present and now - at < 4 * self.kept_seconds:
            if self._need < 1.0:
                return
            self._keep = min(self._keep * _KEPT_LONGER, _KEPT_MOST_SECONDS / _KEPT_LEAST_SECONDS)
        elif now - at > 8 * self.kept_seconds:
            self._keep = max(1.0, self._keep / _KEPT_LONGER)
        else:
            return
        self._let_go = (now, 0)

    def _bounded(self, sight: Sight, wanted: int, *, why: str) -> Verdict:
        scale = self.scale
        idle = 0.0
        if self._asked_at is not None and not sight.busy and not sight.waiting:
            idle = sight.at - self._asked_at
        least = scale.min
        if not least and idle >= scale.idle_seconds:
            return Verdict(0, f"nobody has asked for {idle:.0f} s")
        least = max(1, least)
        if wanted < least:
            return Verdict(min(least, scale.max), f"{why}; no fewer than {least}")
        if wanted > scale.max:
            return Verdict(scale.max, f"{why}; no more than {scale.max}")
        return Verdict(wanted, why)
