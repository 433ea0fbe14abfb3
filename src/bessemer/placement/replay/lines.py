"""Who begins of those who wait for room: whoever fits, in the order in which they came, or whose turn it is by the
product's own queue (`placement.queue`), as in a running system.
"""

from __future__ import annotations

from collections.abc import Iterator

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Request
from bessemer.placement.arrays import Arrays
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.queue import Book, Pending, Rules, Running, plan
from bessemer.placement.queue.plan import beside
from bessemer.placement.replay.run import Desk
from bessemer.placement.replay.stays import Stay
from bessemer.placement.shape import Shape

_RULES = Rules(stops=0)
"""Nobody is stopped: of what is replayed nobody says that it may be."""


class Passing:
    """Whenever something is let go those who wait are asked in the order in which they came, and whoever fits begins:
    a large request can wait long."""

    passed = True

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: dict[int, Stay] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, number: int, stay: Stay) -> None:
        self._waiting[number] = stay

    def next(self, now: float) -> Iterator[tuple[int, Stay, Decision]]:
        # A shape that found no room finds none for the next of its sort.
        refused: set[Shape] = set()
        for number, stay in list(self._waiting.items()):
            shape = Shape.of(stay.request)
            if shape in refused:
                continue
            decision = self._desk.decide(stay.request)
            if isinstance(decision, Decision):
                del self._waiting[number]
                yield number, stay, decision
            else:
                refused.add(shape)


class Queued:
    """By turn: priority, who is overdue, fair shares between projects; places are kept for whoever is first and does
    not fit. Who comes while others wait waits with them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._book = Book(desk.fleet)
        self._running = Running(Holdings(desk.fleet))
        self._waiting: dict[str, tuple[int, Stay, Pending]] = {}

    @property
    def passed(self) -> bool:
        return not self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, number: int, stay: Stay) -> None:
        asker = Asker(uid=str(number), project=stay.project, priority=stay.priority, since=int(stay.comes * 3600))
        self._waiting[asker.uid] = (number, stay, Pending(asker, stay.request))

    def next(self, now: float) -> Iterator[tuple[int, Stay, Decision]]:
        if not self._waiting:
            return
        pending = [one for _, _, one in self._waiting.values()]
        made = plan(self._book, self._running, places=self, waiting=pending, now=int(now * 3600), terms=({}, _RULES))
        for uid, turn in made.turns.items():
            if isinstance(turn.placed, Decision):
                yield self._begun(uid, turn.placed)
        kept = [turn.kept for turn in made.turns.values() if turn.kept is not None and turn.placed is None]
        # Who is further back than a plan looks has what is free beside all that it keeps.
        refused: set[Request] = set()
        for uid in [uid for uid in made.order if uid not in made.turns and uid in self._waiting]:
            wants = self._waiting[uid][1].request
            if wants in refused:
                continue
            with beside(self._book, kept, ends=None):
                answer = self.place(wants)
            if answer is not None:
                yield self._begun(uid, answer)
            else:
                refused.add(wants)

    def place(self, request: Request) -> Decision | None:
        """Where it would go; see `placement.queue.values.Places`."""
        answer = (self._desk.look or self._desk.decide)(request)
        return answer if isinstance(answer, Decision) else None

    def place_gang(self, gang: Gang, among: Arrays | None = None) -> GangDecision | None:
        """A claim of a history is one of its own: nobody asks for a gang."""
        raise AssertionError(f"{gang.count} members together")

    def _begun(self, uid: str, decision: Decision) -> tuple[int, Stay, Decision]:
        number, stay, _ = self._waiting.pop(uid)
        self._desk.took(stay.request)
        return number, stay, decision
