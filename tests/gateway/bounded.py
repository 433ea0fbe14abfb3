"""A gateway as a value of a test: what it admits, its spool in memory, and an api that is a store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import orjson

from bessemer.api import lending
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Unavailable
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.gateway import Admission, Lending, request
from bessemer.gateway.meter import Counts
from bessemer.gateway.tables import EndpointEntry, KeyEntry
from bessemer.gateway.tickets import Ticket
from bessemer.store import Store
from tests.gateway.harness import PROJECT

NUMBERS = itertools.count(1)
ENDPOINT = EndpointEntry("uid-chat", PROJECT, "chat", "words", 0, context_tokens=2048)


def key(name: str = "k", *, owner: str = "alice", bounds: bytes = b"own") -> KeyEntry:
    return KeyEntry(f"uid-{name}", name, PROJECT, frozenset(), None, owner, (), bounds)


FREE = key(owner="", bounds=b"")
"""One whose requests are bounded by nothing but what is its project's and its tenant's."""


def answers(*bounds: Mapping[str, Any], number: int = 0, stands: bool = True, words: str = "") -> dict[str, Any]:
    """As an api answers, of a quota's meters: ``("tokens_per_minute", left, seconds)``."""
    said = [{"scope": f"project/{PROJECT}", "bound": 1 << 30, **one} for one in bounds]
    answer = {"number": number, "stands": stands, "words": words, "quota": True, "prices": {"input": 1_000_000}}
    return {**answer, "bounds": said}


def minute(left: int, *, seconds: float = 60.0) -> dict[str, Any]:
    """The bound of tokens per minute, of which so much is left."""
    return {"meter": "tokens_per_minute", "left": left, "seconds": seconds}


def wanted(body: int = 20, **said: Any) -> request.Wanted:
    """A request whose body has some ``body`` bytes more than it needs."""
    return request.read(
        orjson.dumps({"model": "chat", "prompt": "x" * body, **said}), request.ROUTES["/v1/completions"]
    )


class Gateway:
    """One process. ``away``: the api does not answer it; ``lost``: it does what it is asked, and the answer is lost;
    until ``answers`` is set again what it does is not told."""

    def __init__(
        self, store: Store, clock: FakeClock, name: str, *, spool: list[UsageRecord] | None = None, before: int = 0
    ) -> None:
        self.store, self.clock, self.name = store, clock, name
        self.spool = spool if spool is not None else []
        self.settled = 0
        self.away = self.lost = False
        self.answers = asyncio.Event()
        self.answers.set()
        self._settling = asyncio.Lock()
        self.asked: list[Mapping[str, Any]] = []
        before = before or len(self.spool)
        self.admission = Admission(Lending(self.lend, clock=clock, holder=name, before=before))

    async def lend(self, project: str, *, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
        self._require()
        self.asked.append(bounds)
        ask = lending.Asked.model_validate_json(orjson.dumps(bounds)).ask()
        answer = lending.told(await self.store.bounds.hold(project, ask), now=self.clock.now())
        await self.answers.wait()
        if self.lost:
            raise Unavailable("the answer is lost")
        return answer

    def _require(self) -> None:
        if self.away:
            raise Unavailable("the api is away")

    async def enter(self, of: KeyEntry, what: request.Wanted) -> Ticket:
        entered = self.admission.enter(of, what, endpoint=ENDPOINT)
        return entered if isinstance(entered, Ticket) else await entered

    def end(
        self,
        of: KeyEntry,
        ticket: Ticket,
        *,
        read: int = 0,
        written: int = 0,
        answered: bool = True,
        model: str = "words",
    ) -> Counts:
        """The answer is over: its record is in the spool, and its ticket given back. What of it is billed."""
        counts = ticket.billed(Counts(read, 0, written), model)
        if answered:
            record = UsageRecord(
                at=int(self.clock.now()),
                request_id=f"r{next(NUMBERS)}",
                project=PROJECT,
                endpoint="chat",
                endpoint_uid="uid-chat",
                api_key=of.name,
                model=model,
                status=200,
                input_tokens=counts.input_tokens,
                output_tokens=counts.output_tokens,
                held_micro=ticket.held_micro,
                owner=of.owner or None,
                held_bounds=ticket.names,
            )
            self.spool.append(record)
            self.admission.lending.spend(ticket, record)
        ticket.leave(counts.input_tokens + counts.output_tokens)
        return counts

    async def serve(self, of: KeyEntry, what: request.Wanted, *, read: int = 0, written: int = 0) -> Counts:
        """A request from its beginning to its end, with others between. Raises Refused."""
        ticket = await self.enter(of, what)
        await asyncio.sleep(0)
        return self.end(of, ticket, read=read, written=written)

    async def settle(self) -> None:
        """The spool, as far as it is."""
        async with self._settling:
            records = self.spool[self.settled :]
            if not records:
                return
            batch = UsageBatch(
                gateway_uid=self.name,
                spool_uid=f"spool-{id(self.spool)}",
                first_sequence=self.settled + 1,
                records=records,
            )
            await self.store.ledger.settle(batch)
            self.settled += len(records)
            self.admission.settled(records, len(records))
