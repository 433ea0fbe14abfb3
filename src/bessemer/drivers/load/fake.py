"""Load on the engines of a fake host: what they would answer, at the times that a small model of one gives.

An engine of so many slots takes requests in the order in which they come. A prompt is read at ``read_seconds`` a token
that is not cached, an answer is written at ``write_seconds`` a token and a part more for each other that is written at
the same time. So it has an end, past which whoever comes waits longer and longer.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.engine.fake_server import FakeModel, completion
from bessemer.drivers.engine.sense import engine_ended
from bessemer.drivers.load.protocol import Hit, Look, Shot, Volley


@dataclass(slots=True)
class _Under:
    number: int
    began: float
    ends: float
    hits: Sequence[Hit]


class FakeLoads:
    """Volleys on the engines of a `FakeEngine`. ``refuse`` may be set: then what is looked at next broke."""

    def __init__(
        self,
        engine: FakeEngine,
        clock: Clock,
        *,
        on_call: Hook = no_hook,
        read_seconds: float = 0.001,
        write_seconds: float = 0.01,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._on_call = on_call
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._under: dict[str, _Under] = {}
        self.refuse: DriverError | None = None
        self.begun: list[tuple[str, int]] = []
        """True ones: of a volley that was not known."""

    async def begin(self, uid: str, secret: str, *, volley: Volley) -> None:
        self._on_call("loads.begin")
        known = self._under.get(uid)
        if known is None or known.number != volley.number:
            running = await self._engine.processes.find(uid)
            if running is None:
                raise engine_ended(await self._engine.processes.ended(uid))
            hits = self._fired(self._engine.models[uid], volley)
            now = self._clock.monotonic()
            self._under[uid] = _Under(volley.number, now, now + max(hit.ended for hit in hits), hits)
            self.begun.append((uid, volley.number))
        self._on_call("loads.begin.done")

    async def look(self, uid: str, number: int) -> Look | None:
        self._on_call("loads.look")
        under = self._under.get(uid)
        if under is None or under.number != number:
            return None
        if self.refuse is not None:
            del self._under[uid]
            raise self.refuse
        now = self._clock.monotonic()
        if await self._engine.processes.find(uid) is None:
            # What it answered before it ended is nobody's to know: what is asked of it breaks off.
            return Look(1.0, tuple(Hit(0, 0.0, 0.0, trouble="no whole answer: EOFError") for _ in under.hits))
        if now < under.ends:
            return Look((now - under.began) / (under.ends - under.began))
        return Look(1.0, under.hits)

    async def end(self, uid: str) -> None:
        self._on_call("loads.end")
        self._under.pop(uid, None)
        self._on_call("loads.end.done")

    def lose(self) -> None:
        """The agent that knew of them ended."""
        self._under.clear()

    def _fired(self, model: FakeModel, volley: Volley) -> Sequence[Hit]:
        free, done, hits = [0.0] * (1 if volley.serial else model.slots), 0.0, []
        heapq.heapify(free)
        ends: list[float] = []
        for shot in sorted(volley.shots, key=lambda shot: 0.0 if volley.serial else shot.at):
            sent = done if volley.serial else shot.at
            begin = max(sent, heapq.heappop(free))
            beside = sum(end > begin for end in ends)
            hit = self._hit(model, shot, sent=sent, begin=begin, beside=beside)
            done = hit.ended
            heapq.heappush(free, done)
            ends.append(done)
            late = done > volley.seconds
            hits.append(Hit(0, sent, volley.seconds, trouble="no whole answer in time") if late else hit)
        order = sorted(range(len(hits)), key=lambda n: 0.0 if volley.serial else volley.shots[n].at)
        return tuple(hits[order.index(n)] for n in range(len(hits)))

    def _hit(self, model: FakeModel, shot: Shot, *, sent: float, begin: float, beside: int) -> Hit:
        if model.behaviour.status != 200:
            return Hit(model.behaviour.status, sent, begin, answer='{"error": {"message": "told to fail"}}')
        if shot.path == "/v1/embeddings":
            return self._embedded(model, shot, sent=sent, begin=begin)
        answer = model.answer(dict(shot.body))
        written, each = len(answer.words), self._write_seconds * (1 + beside / 4)
        model.counters.tokens_predicted += written
        read = begin + self._read_seconds * answer.prompt_n
        whole = Hit(
            200,
            sent,
            read + each * written,
            read=answer.prompt_n + answer.cache_n,
            cached=answer.cache_n,
            written=written,
        )
        if not shot.body.get("stream"):
            return replace(whole, answer=orjson.dumps(completion(answer)).decode() if shot.keep else "")
        return replace(whole, first=read + each, gaps=(each,) * (written - 1))

    def _embedded(self, model: FakeModel, shot: Shot, *, sent: float, begin: float) -> Hit:
        """A text is read, and nothing is written."""
        if not model.embeds:
            return Hit(501, sent, begin, answer='{"error": {"message": "This server does not support embeddings"}}')
        said = model.embed(dict(shot.body))
        read = said["usage"]["prompt_tokens"]
        answer = orjson.dumps(said).decode() if shot.keep else ""
        return Hit(200, sent, begin + self._read_seconds * read, read=read, answer=answer)
