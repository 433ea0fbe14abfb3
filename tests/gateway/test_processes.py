"""Two gateways on one port, each with its own spool: what they spend together is exact, whoever of them is asked."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson

from bessemer.api import listen
from bessemer.core.clock import FakeClock
from bessemer.core.values import UsageRecord
from bessemer.store import Store
from tests.gateway.bounded import Gateway
from tests.gateway.harness import Rig, api_key, rig
from tests.store.test_bounds import KEY, furnish, standing

BUDGET = 10_000
CLIENTS = 12
BODY = {"model": "words", "messages": [{"role": "user", "content": "why is it"}], "max_tokens": 40}


def spooled(to: Rig) -> list[UsageRecord]:
    """What its spool has, as the api hears it."""
    pending = to.spool.pending(most=to.spool.waiting)
    records = pending.records if pending is not None else ()
    return [UsageRecord.model_validate_json(one.line()) for one in records]


async def test_a_budget_is_never_passed_whichever_the_kernel_chooses(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": BUDGET}})
    accounts = [Gateway(store, clock, name) for name in ("first", "second")]
    async with rig(admission=accounts[0].admission) as first, rig(admission=accounts[1].admission) as second:
        on = listen("127.0.0.1", 0, shared=True)
        port = on.getsockname()[1]
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(first.front.connect, sock=on),
            await loop.create_server(second.front.connect, sock=listen("127.0.0.1", port, shared=True)),
        ]
        for to in (first, second):
            await to.replica("r", of="words")
            to.tables.apply(api_key("k", "bsk_k", owner="alice", budget={"period": "Total", "tokens": BUDGET}))
        statuses = await asyncio.gather(*(spend(port) for _ in range(CLIENTS)))
        records = [spooled(to) for to in (first, second)]
        for server in servers:
            server.close()
    assert all(records), "both were asked"
    paid = [one for mine in records for one in mine if one.status == 200]
    spent = sum(one.input_tokens + one.output_tokens for one in paid)
    assert len(paid) == sum(statuses)
    for account, mine in zip(accounts, records, strict=True):
        account.spool.extend(mine)
        await account.settle()
        await account.admission.say(last=True)
    bound = (await standing(store))[KEY, "tokens/total"]
    assert (bound.used, bound.held) == (spent, 0)
    assert BUDGET // 2 < spent <= BUDGET, "not one token more; what the other one holds yet is nobody's"


async def spend(port: int) -> int:
    """One client, each request over a connection of its own, until it is refused for good; how many it had answered."""
    served, refused = 0, 0
    headers = {"Authorization": "Bearer bsk_k", "Connection": "close"}
    async with asyncio.timeout(60), aiohttp.ClientSession(headers=headers) as session:
        while refused < 3:
            async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY) as got:
                said = orjson.loads(await got.read())
                if got.status == 200:
                    served += 1
                    continue
                code = said["error"]["code"]
                assert (got.status, code) in ((429, "insufficient_quota"), (503, "limit_unknown"))
                refused += got.status == 429  # else others were quicker each time: it is to be tried again
    return served
