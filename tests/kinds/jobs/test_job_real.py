"""Real gangs: two agents in network namespaces of their own, two members on each, that find each other and reckon."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from bessemer.core.resource import Key
from tests.api.world import named
from tests.kinds.jobs.site import OURS, PROJECT, Gangs, Machine, Network, bridged, gangs
from tests.kinds.world import USER, body

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

REDUCE = r"""
import os, socket, sys, time

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
master = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
own = os.environ["BESSEMER_ADDRESS"]


def dial(address):
    for _ in range(300):
        try:
            return socket.create_connection(address, 1)
        except OSError:
            time.sleep(0.1)
    sys.exit("nobody answers at %s:%d" % address)


# Rendezvous: rank 0 gathers where each listens, and tells all.
door = socket.create_server((own, 0))
mine = "%s %d" % (own, door.getsockname()[1])
if rank == 0:
    hall = socket.create_server(("", master[1]))
    doors, calls = {0: mine}, []
    while len(doors) < size:
        call = hall.accept()[0].makefile("rw")
        number, where = call.readline().strip().split(" ", 1)
        doors[int(number)] = where
        calls.append(call)
    table = [doors[n] for n in range(size)]
    for call in calls:
        call.write("|".join(table) + "\n")
        call.flush()
else:
    call = dial(master).makefile("rw")
    call.write("%d %s\n" % (rank, mine))
    call.flush()
    table = call.readline().strip().split("|")

# A ring: what comes from the left goes on to the right, until each has had all of them.
host, port = table[(rank + 1) % size].split()
right = dial((host, int(port))).makefile("w")
left = door.accept()[0].makefile("r")
total = carried = (rank + 1) ** 2
for _ in range(size - 1):
    right.write("%d\n" % carried)
    right.flush()
    carried = int(left.readline())
    total += carried
print("rank", rank, "of", size, "at", own, "sum", total, flush=True)
time.sleep(float(os.environ.get("LINGER", "0")))
"""
SCRIPT = f"cat >reduce.py <<'END'{REDUCE}END\nexec python3 reduce.py\n"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with bridged(2) as made:
        yield made


@pytest.fixture
async def g(network: Network, state_dir: Path) -> AsyncIterator[Gangs]:
    async with gangs(state_dir, network) as made:
        await made.w.store.objects.create(
            body("Flavor", "member", namespace="", spec={"cores": 1, "memory": "128Mi"}), USER
        )
        yield made


async def test_two_processes_on_each_of_two_hosts_reduce_and_are_billed(g: Gangs) -> None:
    """One agent is killed (kill -9) meanwhile, and comes again when its members have ended: what they printed and how
    they ended is told all the same, and each was started once."""
    plan = {"currency": "EUR", "rates": {"coreHour": 3_600_000_000, "memoryGibHour": 1_000_000}}
    await g.w.create(f"{OURS}/priceplans", named("dear", **plan))
    tenant = await g.w.call("PATCH", f"{OURS}/tenants/acme", {"spec": {"pricePlan": "dear"}}, media=MERGE)
    assert tenant.code == 200, tenant.body
    spec = {"flavor": "member", "members": 4, "topology": {"perHost": 2}, "script": SCRIPT, "env": {"LINGER": "1"}}
    await g.job("reduce", **spec)
    status = await g.until_phase("reduce", "Running")
    second = g.machines[1]
    second.kill()
    addresses = {machine.name: machine.address for machine in g.machines}
    assert {host["name"]: host["address"] for host in status["hosts"]} == addresses
    assert sorted(rank for host in status["hosts"] for rank in host["ranks"]) == [0, 1, 2, 3]
    where = {rank: host["address"] for host in status["hosts"] for rank in host["ranks"]}
    assert len(await second.drivers.jobs.uids()) == 2
    await g.expect(lambda: _all_ended(second))
    assert (await g.status("reduce"))["phase"] != "Succeeded", "nobody has said how two of them ended"
    second.start(g.site)
    status = await g.until_phase("reduce", "Succeeded")
    assert (status["attempt"], status["failures"]) == (0, 0)
    await g.until_free()
    for rank in (0, 3):
        assert await g.log("reduce", rank) == f"rank {rank} of 4 at {where[rank]} sum {1 + 4 + 9 + 16}\n"
    for machine in g.machines:
        assert await machine.drivers.jobs.uids() == frozenset(), "nothing of it is left"
    await _check_bill(g)


async def _check_bill(g: Gangs) -> None:
    """The invoice has the core seconds of all four, as their intervals in the ledger add up."""
    rows = [row for row in await g.w.store.ledger.entries() if row.claim_uid]
    bill = await g.w.call("GET", f"{OURS}/projects/{PROJECT}/invoice?from=0&to={(1 << 40) - 1}")
    assert bill.code == 200, bill.body
    (cores,) = (line for line in bill.json["lines"] if line["meter"] == "cores")
    claims, seconds = {row.claim_uid for row in rows}, 0
    for uid in claims:
        history = [row for row in rows if row.claim_uid == uid]
        assert (history[0].milli_cores, history[-1].kind) == (1000, "close")
        seconds += sum(b.at - a.at for a, b in pairwise(history) if a.state in ("running", "stopped"))
    assert len(claims) == 4
    assert seconds >= 4
    assert (cores["workloadName"], cores["seconds"], cores["quantity"]) == ("reduce", seconds, 1000 * seconds)
    assert cores["amountMicro"] == 1_000_000 * seconds


async def _all_ended(machine: Machine) -> bool:
    return not await machine.drivers.jobs.running()


MERGE = "application/merge-patch+json"


@pytest.mark.long
async def test_one_that_fails_ends_the_others_on_both_hosts(g: Gangs) -> None:
    script = 'test "$RANK" = 3 && sleep 1 && exit 9\nexec sleep 600'
    await g.job("broken", flavor="member", members=4, topology={"perHost": 2}, script=script, backoffLimit=1)
    status = await g.until_phase("broken", "Failed")
    assert (status["failure"]["rank"], status["failure"]["exitCode"], status["attempt"]) == (3, 9, 1)
    await g.until_free()
    for machine in g.machines:
        assert await machine.drivers.jobs.running() == ()
    found = orjson.loads((await g.w.store.objects.get(Key("Job", PROJECT, "broken"))).body)
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert ready["reason"] == "MemberFailed"
    assert ready["message"].endswith("it ended with exit status 9")


@pytest.mark.long
async def test_a_job_is_moved_from_one_host_to_the_other_so_that_the_first_is_empty(g: Gangs) -> None:
    """A real process is told, ended on its host, and begun on the other one, at the place that was kept for it."""
    script = "trap 'echo moved; exit 0' TERM\necho at $BESSEMER_ADDRESS\nwhile true; do sleep 0.2; done"
    await g.job("train", flavor="member", script=script, movable=True)
    before = (await g.until_phase("train", "Running"))["hosts"][0]["name"]
    first, second = sorted(g.machines, key=lambda machine: machine.name != before)
    await g.w.create(f"{OURS}/consolidations", named("tidy", empty={"hosts": [before]}, approved=True))

    async def told() -> dict[str, Any]:
        body = orjson.loads((await g.w.store.objects.get(Key("Consolidation", "", "tidy"))).body)
        found: dict[str, Any] = body.get("status", {})
        return found

    async def ended() -> bool:
        return (await told()).get("phase") in ("Succeeded", "Failed")

    await g.expect(ended, seconds=100.0)
    status = await told()
    assert (status["phase"], status["moved"], status["steps"][0]["how"]) == ("Succeeded", 1, "Restart"), status
    assert await first.drivers.jobs.running() == ()
    assert len(await second.drivers.jobs.running()) == 1
    job = await g.status("train")
    assert (job["phase"], job["failures"], job["hosts"][0]["name"]) == ("Running", 0, second.name)
    assert await g.log("train", 0) == f"at {second.address}\n"
