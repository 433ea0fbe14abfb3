"""A placement's dry run: what it says is what a create would come to, and nothing is left of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from bessemer.api.questions import SELF_ACCESS
from bessemer.core.asking import Decision, Gang, GangDecision, Refusal, Request
from bessemer.core.clock import rfc3339
from bessemer.core.errors import Unavailable
from bessemer.core.hosts import Inventory
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import API_VERSION, GROUP, Key
from bessemer.core.units import GIB
from bessemer.core.values import LedgerEntry
from bessemer.drivers.inspect import tables
from bessemer.kinds import workload
from bessemer.kinds.asks import ASKS
from bessemer.kinds.compute.instance.spec import Instance
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.foresight import Foreseen
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.planning import REPLICAS_MAX
from bessemer.kinds.jobs.job.spec import Job
from bessemer.metering.invoice import derive
from bessemer.metering.plan import Plan
from bessemer.placement import Hold
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.own import classes
from bessemer.placement.queue import Pending
from bessemer.placement.shape import Shape
from tests.api.test_credentials import made as credential
from tests.api.world import ADMIN, BASE, PATIENCE_SECONDS, Reply, World, instance, named
from tests.kinds import pages
from tests.placement.hosts import inventory

LAB = f"{BASE}/namespaces/acme--lab"
PATH = f"{LAB}/placementreviews"
RATES = {"deviceHour": {"H100": 2_500_000, "*": 1}, "coreHour": 40_000, "memoryGibHour": 5_000}


async def stand(w: World, name: str, report: Inventory, **spec: Any) -> None:
    """A Host that is heard of."""
    objects = w.store.objects
    body = {"apiVersion": API_VERSION, "kind": "Host", "metadata": {"name": name}, "spec": spec}
    await objects.create(body, CONTROLLER)
    heard = {"type": "Reachable", "status": "True", "reason": "Heard", "lastTransitionTime": rfc3339(0)}
    for part, said, writer in (
        ("report", {"report": report.dump()}, Writer("agent", name)),
        ("status", {"phase": "Ready", "conditions": [heard]}, CONTROLLER),
    ):
        now = orjson.loads((await objects.get(Key("Host", "", name))).body)
        await objects.replace({**now, "status": {**now.get("status", {}), **said}}, writer, part=part)  # type: ignore[arg-type]
    await w.store.capacity.declare(name, report)


async def status(w: World, kind: str, name: str, **said: Any) -> None:
    now = orjson.loads((await w.store.objects.get(Key(kind, "", name))).body)
    await w.store.objects.replace({**now, "status": said}, CONTROLLER, part="status")


@asynccontextmanager
async def fed(w: World) -> AsyncIterator[FleetFeed]:
    """The fleet, followed."""
    assert w.fleet is not None
    running = asyncio.ensure_future(w.fleet.run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not w.fleet.ready():
                await asyncio.sleep(0)
        yield w.fleet
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def furnished(w: World) -> AsyncIterator[FleetFeed]:
    """Three hosts of anybody, one of another tenant; flavors, an image, a model and a price plan."""
    for name, gpus in (("h1", 2), ("h2", 4), ("h3", 4)):
        await stand(w, name, inventory(gpus=gpus, leaf=f"leaf-{name[1:]}", addresses=[f"10.9.0.{name[1:]}"]))
    await stand(w, "secret", inventory(gpus=8, leaf="leaf-1"))
    other = {"metadata": {"name": "rival"}, "spec": {"hosts": {"names": ["secret"]}}}
    await w.create(f"{BASE}/tenants", other)
    await w.create(f"{BASE}/priceplans", named("standard", currency="EUR", rates=RATES))
    size = {"cores": 2, "memory": "4Gi", "devices": {"count": 2, "model": "H100"}}
    flavors = f"{BASE.replace('v1alpha1', 'v1beta1')}/flavors"
    await w.create(flavors, named("pair", **size))
    await w.create(flavors, named("large", **{**size, "devices": {"count": 16}}))
    await w.create(f"{BASE}/images", named("micro"))
    await status(w, "Image", "micro", phase="Ready", digest="sha256:" + "0" * 64)
    await model(w)
    async with fed(w) as feed:
        pair = Request(tenant="", milli_cores=2000, memory_bytes=4 * GIB, device_count=2)
        mix = Mix.of({Shape.of(pair): 3.0, Shape.of(replace(pair, device_count=4, milli_cores=4000)): 1.0})
        feed.own.foresee(Outlook.derive(mix, classes(feed.arrays)))
        yield feed


@pytest.fixture
async def fleet(w: World) -> AsyncIterator[FleetFeed]:
    async with furnished(w) as feed:
        yield feed


def arrays(feed: FleetFeed) -> Mapping[str, Any]:
    return {name: value.copy() for name, value in vars(feed.arrays).items() if isinstance(value, np.ndarray)}


async def caught_up(w: World, feed: FleetFeed) -> None:
    """The fleet has heard of every host's taints."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(feed.arrays.taint_sets[feed.arrays.taints[feed.arrays.row(name)]] for name in ("h1", "h2", "h3")):
            await asyncio.sleep(0)


async def ask(w: World, body: Mapping[str, Any], *, kind: str = "Instance", **options: Any) -> Reply:
    return await w.call("POST", PATH, {"spec": {"object": {"kind": kind, **body}}}, **options)


async def told(w: World, body: Mapping[str, Any], **options: Any) -> Any:
    reply = await ask(w, body, **options)
    assert reply.code == 201, reply.body
    return reply.json["status"]


def vm(name: str = "vm", **spec: Any) -> dict[str, Any]:
    return instance(name, **{"flavor": "pair", **spec})


async def model(w: World) -> None:
    await w.create(f"{BASE}/models", named("smol", **pages.specs()["Model"]))
    await status(w, "Model", "smol", phase="Ready", digest="sha256:" + "0" * 64)


async def endpoint(w: World, replicas: int, flavor: str = "pair", **options: Any) -> Any:
    body = named("chat", model="smol", flavor=flavor, replicas=replicas)
    return await told(w, body, kind="Endpoint", **options)


async def job(w: World, members: int, *, name: str = "train", **spec: Any) -> Any:
    body = named(name, **{"flavor": "pair", "members": members, "script": "true", **spec})
    return await told(w, body, kind="Job")


async def test_it_says_where_and_keeps_nothing(w: World, fleet: FleetFeed) -> None:
    mia = await w.login("mia")
    before, revision, rows = arrays(fleet), w.store.revision, len(await w.store.audit.rows())
    said = await told(w, vm(), token=mia)
    assert (said["fits"], said["message"], said["wanted"], said["tried"]) == (True, "fits on h3", 1, 1)
    (replica,) = said["replicas"]
    flavor = Request(tenant="acme", milli_cores=2000, memory_bytes=4 * GIB, device_count=2, virtualization=True)
    decided = fleet.decide(flavor)
    assert isinstance(decided, Decision)
    assert replica["host"] == decided.host == "h3"
    assert [device["id"] for device in replica["devices"]] == list(decided.devices)
    assert replica["allocations"] == [part.dump() for part in decided.allocations]
    assert replica["why"].startswith("of 3 hosts with room: it costs the fleet least there, 0.1 of a device (")
    assert replica["parts"]["fragments"] == 100.0
    assert {reason["code"]: reason["hosts"] for reason in replica["reasons"]} == {"Dedicated": 1}
    assert said["expectedStart"]
    (room,) = said["hosts"]
    taken = {device["id"]: device["takenMilli"] for device in room["devices"] if device["takenMilli"]}
    assert taken == dict.fromkeys(decided.devices, 1000)
    assert all(device["freeMilli"] == 1000 for device in room["devices"])
    assert sum(node["milliCoresTaken"] for node in room["numa"]) == 2000
    assert [(leaf["leaf"], leaf["hosts"], leaf["fitting"], leaf["free"]) for leaf in said["leaves"]] == [
        ("leaf-1", 1, 1, 2),
        ("leaf-2", 1, 1, 4),
        ("leaf-3", 1, 1, 4),
    ]
    assert all(np.array_equal(before[name], now) for name, now in arrays(fleet).items())
    assert (w.store.revision, len(await w.store.audit.rows())) == (revision, rows)


async def test_replicas_are_decided_one_after_the_other(w: World, fleet: FleetFeed) -> None:
    before = arrays(fleet)
    said = await endpoint(w, 7)
    hosts = [replica["host"] for replica in said["replicas"]]
    assert (said["fits"], said["message"], sorted(hosts)) == (
        False,
        "5 of 7 replicas fit now",
        ["h1", *["h2"] * 2, *["h3"] * 2],
    )
    held = [(replica["host"], device["id"]) for replica in said["replicas"] for device in replica["devices"]]
    assert len(held) == len(set(held)) == 10
    assert said["refusal"]["replica"] == 5
    assert {reason["hosts"] for reason in said["refusal"]["reasons"]} == {1, 3}
    assert said["refusal"]["remedy"]
    assert "expectedStart" not in said
    assert (await endpoint(w, 5))["fits"]
    assert (await endpoint(w, 0))["message"] == "no replica is wanted"
    assert all(np.array_equal(before[name], now) for name, now in arrays(fleet).items())


async def test_what_goes_before_is_counted(w: World, fleet: FleetFeed) -> None:
    before = arrays(fleet)
    chat = {"kind": "Endpoint", **named("chat", model="smol", flavor="pair", replicas=4)}
    spec = {"object": {"kind": "Instance", **vm()}, "after": [chat]}
    reply = await w.call("POST", PATH, {"spec": spec}, token=await w.login("mia"))
    alone = await told(w, vm())
    (replica,) = reply.json["status"]["replicas"]
    # Four pairs of the ten devices are gone: what is left is where the Endpoint's fifth replica would go.
    assert replica["host"] == (await endpoint(w, 5))["replicas"][4]["host"] != alone["replicas"][0]["host"]
    assert (await w.call("POST", PATH, {"spec": {**spec, "after": [chat] * 17}})).code == 422
    assert (await w.call("POST", PATH, {"spec": {**spec, "after": [{"kind": "Tenant"}]}})).code == 422
    assert all(np.array_equal(before[name], now) for name, now in arrays(fleet).items())


async def test_of_what_goes_before_no_more_is_decided_than_of_one_question(
    w: World, fleet: FleetFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await w.create(f"{BASE.replace('v1alpha1', 'v1beta1')}/flavors", named("tiny", cores=1, memory="512Mi"))
    await stand(w, "wide", inventory(threads=600, memory=512 * GIB))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while fleet.arrays.row("wide") is None:
            await asyncio.sleep(0)
    before, calls = arrays(fleet), Counter[str]()

    def count(who: Any, name: str) -> None:
        asked = getattr(who, name)

        def counted(request: Request) -> Any:
            calls[name] += 1
            return asked(request)

        monkeypatch.setattr(who, name, counted)

    count(fleet.own, "place")
    count(fleet, "decide")
    many = [{"kind": "Endpoint", **named(f"e{n}", model="smol", flavor="tiny", replicas=60)} for n in range(16)]
    said = (await w.call("POST", PATH, {"spec": {"object": {"kind": "Instance", **vm()}, "after": many}})).json
    assert calls == {"place": REPLICAS_MAX, "decide": 1}
    assert [one["reason"] for one in said["status"]["hindrances"]] == ["TooManyReplicas"]
    assert all(np.array_equal(before[name], now) for name, now in arrays(fleet).items())


async def test_what_goes_before_counts_against_quotas(w: World, fleet: FleetFeed) -> None:
    now = (await w.call("GET", f"{BASE}/tenants/acme")).json
    now["spec"]["quota"] = {"devices": {"H100": 5}, "instances": 2}
    assert (await w.call("PUT", f"{BASE}/tenants/acme", now)).code == 200
    for earlier, words in ((1, []), (2, ["6 more", "3 more"])):
        after = [{"kind": "Instance", **vm(f"vm{n}")} for n in range(earlier)]
        reply = await w.call("POST", PATH, {"spec": {"object": {"kind": "Instance", **vm()}, "after": after}})
        messages = [one["message"] for one in reply.json["status"]["hindrances"]]
        assert len(messages) == len(words), messages
        assert all(any(word in message for message in messages) for word in words), messages


async def test_an_error_on_the_way_leaves_nothing(w: World, fleet: FleetFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    before, decide, calls = arrays(fleet), fleet.decide, iter(range(3))

    def breaks(request: Request) -> Decision | Refusal:
        if next(calls) == 2:
            raise Unavailable("now of all times", retry_after_seconds=1)
        return decide(request)

    monkeypatch.setattr(fleet, "decide", breaks)
    reply = await ask(w, named("chat", model="smol", flavor="pair", replicas=4), kind="Endpoint")
    assert reply.code == 503
    assert all(np.array_equal(before[name], now) for name, now in arrays(fleet).items())


async def test_of_very_many_replicas_the_first_are_looked_at(w: World, fleet: FleetFeed) -> None:
    await w.create(f"{BASE.replace('v1alpha1', 'v1beta1')}/flavors", named("tiny", cores=1, memory="512Mi"))
    await stand(w, "wide", inventory(threads=600, memory=512 * GIB))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while fleet.arrays.row("wide") is None:
            await asyncio.sleep(0)
    said = await endpoint(w, REPLICAS_MAX + 1, flavor="tiny")
    assert (said["tried"], said["fits"]) == (REPLICAS_MAX, False)
    assert [one["reason"] for one in said["hindrances"]] == ["TooManyReplicas"]


async def test_who_may_create_may_ask(w: World, fleet: FleetFeed) -> None:
    codes = {user: (await ask(w, vm(), token=await w.login(user))).code for user in ("ann", "mia", "rob", "eve", "new")}
    assert codes == {"ann": 201, "mia": 201, "rob": 403, "eve": 404, "new": 404}
    assert (await ask(w, vm(), peer=None)).code == 401
    question = {"verb": "create", "group": GROUP, "resource": "placementreviews", "namespace": "acme--lab"}
    for user, code in codes.items():
        told = {"spec": {"resourceAttributes": question}}
        reply = await w.call("POST", SELF_ACCESS.path, told, token=await w.login(user))
        assert reply.json["status"]["allowed"] == (code == 201), user


async def test_hosts_are_named_to_who_may_read_them(w: World, fleet: FleetFeed) -> None:
    seen = {}
    for who in ({"token": await w.login("mia")}, {"peer": ADMIN}):
        reply = await ask(w, vm(), **who)
        assert b"secret" not in reply.body
        (replica,) = reply.json["status"]["replicas"]
        seen[str(who)] = [other["host"] for other in replica["others"]]
        assert all(other["score"] for other in replica["others"])
    assert [*seen.values()] == [["", ""], ["h2", "h1"]]


async def test_the_price_is_the_invoice_of_an_hour(w: World, fleet: FleetFeed) -> None:
    said = await endpoint(w, 3, token=await w.login("mia"))
    rows = []
    for n in range(3):
        who = {"tenant": "acme", "project": "acme--lab", "workload_kind": "Endpoint", "workload_name": "chat"}
        rows.append(
            LedgerEntry(
                id=n,
                at=1000,
                kind="open",
                **who,
                workload_uid="u",
                claim_uid=str(n),
                state="running",
                device_model="H100",
                devices=2,
                milli_cores=2000,
                memory_bytes=4 * GIB,
            )
        )
    bill = derive(rows, Plan.model_validate({"rates": RATES}), start=1000, end=4600)
    assert said["price"]["microPerHour"] == bill.total_micro == 3 * (2 * 2_500_000 + 2 * 40_000 + 4 * 5_000)
    assert {line["meter"]: line["amountMicro"] for line in said["price"]["lines"]} == {
        line.meter: line.amount_micro for line in bill.lines
    }


async def test_a_credential_that_may_not_read_prices_is_told_none(w: World, fleet: FleetFeed) -> None:
    assert (await endpoint(w, 1, token=await credential(w)))["price"]
    bounded = await credential(w, name="making", verbs=["create"], kinds=["Endpoint"])
    assert "price" not in await endpoint(w, 1, token=bounded)


async def test_what_is_in_the_way_is_said(w: World, fleet: FleetFeed) -> None:
    def reasons(said: Any) -> list[str]:
        return [one["reason"] for one in said["hindrances"]]

    said = await told(w, vm(flavor="none"))
    assert (said["fits"], reasons(said), said["replicas"]) == (False, ["FlavorNotFound"], [])
    assert said["never"] == "there is no Flavor none"
    said = await told(w, vm(image="none"))
    assert (said["fits"], reasons(said), len(said["replicas"])) == (False, ["ImageNotFound"], 1)
    await status(w, "Image", "micro", phase="Importing")
    said = await told(w, vm())
    assert (said["fits"], reasons(said), "expectedStart" in said) == (True, ["ImageNotReady"], False)
    await status(w, "Image", "micro", phase="Ready", digest="sha256:" + "0" * 64)
    said = await told(w, vm(flavor="large"))
    assert (said["fits"], said["refusal"]["message"]) == (
        False,
        "1 host: dedicated to other tenants; 3 hosts: with fewer than 16 GPUs (at most 4 there)",
    )
    assert said["never"] == "no hosts would take it, were all of them empty"
    now = (await w.call("GET", f"{BASE}/tenants/acme")).json
    now["spec"]["quota"] = {"devices": {"H100": 1}}
    assert (await w.call("PUT", f"{BASE}/tenants/acme", now)).code == 200
    said = await told(w, vm())
    assert (said["fits"], reasons(said)) == (False, ["QuotaExceeded"])
    assert said["hindrances"][0]["message"] == "tenant/acme may have 1 H100 and uses 0: 2 more do not fit"
    assert not said["never"], "it may be given more"


async def test_where_others_wait_no_start_is_promised(
    w: World, fleet: FleetFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "others", lambda: True)
    said = await told(w, vm())
    assert (said["fits"], [(one["reason"], one["passing"]) for one in said["hindrances"]]) == (
        True,
        [("Queued", True)],
    )
    assert "expectedStart" not in said


async def test_whose_turn_it_would_be_is_told_without_others_names(
    w: World, fleet: FleetFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims of the project by name for who may read them, all others as a number and their devices."""
    await w.create(f"{LAB}/instances", vm("low"))
    stored = Instance.load((await w.store.objects.get(Key("Instance", "acme--lab", "low"))).body)
    asks = await ASKS["Instance"].of(w.store, stored)
    assert isinstance(asks.wants, Request)
    decided = fleet.decide(asks.wants)
    assert isinstance(decided, Decision)
    flavor = Flavor.load((await w.store.objects.get(Key("Flavor", "", "pair"))).body)
    make = workload.Make(flavor, {}, await workload.terms_of(w.store, "acme--lab"))
    context = SimpleNamespace(fleet=fleet, capacity=w.store.capacity, objects=w.store.objects, clock=w.clock)
    await workload.take(context, stored, decision=decided, make=make)  # type: ignore[arg-type]
    (claim,) = await workload.own_claims(w.store, stored)
    asked: list[Pending] = []
    start = int(w.clock.now()) + 30
    stops = {claim.uid: Hold.of(decided), "theirs": Hold("secret", ("gpu0", "gpu1", "gpu2"), ())}
    foreseen = Foreseen(ahead=2, waiting=5, start=start, stops=stops)
    monkeypatch.setattr(fleet, "foresee", lambda pending: asked.append(pending) or foreseen, raising=False)
    monkeypatch.setattr(fleet, "others", lambda: True)
    said = await told(w, vm(priority=0, preemptible=True))
    assert said["turn"] == {
        "ahead": 2,
        "waiting": 5,
        "start": rfc3339(start),
        "message": f"by {rfc3339(start)}; 2 of 5 that wait go before it",
        "stops": [{"claim": "instance-low-0", "workload": "Instance/low", "devices": 2}],
        "otherClaims": 1,
        "otherDevices": 3,
    }
    assert said["expectedStart"] == rfc3339(start)
    assert "secret" not in str(said["turn"])
    assert [(one.asker.project, one.asker.preemptible, one.wants) for one in asked] == [("acme--lab", True, asks.wants)]
    # Whose turn it is at once waits for nobody.
    monkeypatch.setattr(fleet, "foresee", lambda _: Foreseen(ahead=0, waiting=1, start=start - 30, at_once=True))
    said = await told(w, vm())
    assert (said["hindrances"], said["expectedStart"]) == ([], rfc3339(start - 30))


async def test_a_body_is_judged_as_one_that_is_created(w: World, fleet: FleetFeed) -> None:
    for body, kind, code in (
        (named("vm", flavor="pair"), "Instance", 422),
        (vm(tolerations=[{"key": "bessemer.dev/fake"}]), "Instance", 422),
        ({**vm(), "spek": {}}, "Instance", 400),
        (named("k"), "ApiKey", 422),
        ({**vm(), "metadata": {"name": "vm", "namespace": "other--lab"}}, "Instance", 400),
    ):
        token = await w.login("mia")
        reply = await ask(w, body, kind=kind, token=token)
        assert reply.code == code, reply.body
        if kind == "Instance":
            made = await w.call("POST", f"{LAB}/instances?dryRun=All", body, token=token)
            assert (made.code, made.json["message"]) == (code, reply.json["message"])
    assert (await w.call("POST", PATH, {"spec": {}})).code == 422
    assert (await w.call("POST", PATH, {"spec": {"object": vm(), "policy": "x"}})).code == 400


async def test_a_gang_is_planned_whole(w: World, fleet: FleetFeed) -> None:
    before = arrays(fleet)
    said = await job(w, 4, topology={"perHost": 2})
    member = Request(tenant="acme", milli_cores=2000, memory_bytes=4 * GIB, device_count=2, isolation=True)
    member = replace(member, device_models=frozenset({"H100"}), bearable=frozenset())
    decided = fleet.decide_gang(Gang(member=member, count=4, per_host=2))
    assert isinstance(decided, GangDecision)
    assert [one["host"] for one in said["replicas"]] == [one.host for one in decided.members]
    assert [[d["id"] for d in one["devices"]] for one in said["replicas"]] == [[*m.devices] for m in decided.members]
    assert (said["fits"], said["wanted"], said["tried"], said["message"]) == (
        True,
        4,
        4,
        "all 4 members fit, on 2 hosts",
    )
    gang = said["gang"]
    assert gang["score"] == decided.score
    assert gang["hosts"] == [
        {"host": "h2", "leaf": "leaf-2", "ranks": [0, 1]},
        {"host": "h3", "leaf": "leaf-3", "ranks": [2, 3]},
    ]
    assert [(one["leaf"], one["hosts"], one["members"]) for one in gang["leaves"]] == [
        ("leaf-2", 1, 2),
        ("leaf-3", 1, 2),
    ]
    assert said["price"]["microPerHour"] == 4 * (2 * 2_500_000 + 2 * 40_000 + 4 * 5_000)
    assert said["expectedStart"]
    for name, array in arrays(fleet).items():
        assert np.array_equal(array, before[name]), name


async def test_a_gang_that_does_not_fit_has_no_member_placed(w: World, fleet: FleetFeed) -> None:
    said = await job(w, 9)
    assert (said["fits"], said["replicas"], said.get("gang")) == (False, [], None)
    assert said["refusal"]["remedy"] == "ask for at most 5 members"
    assert said["never"] == "no hosts would take it as a whole, were all of them empty"
    assert said["price"]["microPerHour"] == 9 * (2 * 2_500_000 + 2 * 40_000 + 4 * 5_000)
    assert [one["reason"] for one in (await job(w, 2, subnet="10.1.0.0/16"))["hindrances"]] == ["HostUnaddressed"]
    reply = await w.call(
        "POST",
        PATH,
        {
            "spec": {
                "object": {"kind": "Instance", **vm()},
                "after": [{"kind": "Job", **named("train", flavor="pair", members=4, script="true")}],
            }
        },
    )
    assert reply.json["status"]["message"] == "fits on h1"


async def test_what_an_object_holds_already_is_thought_away(w: World, fleet: FleetFeed) -> None:
    """It is planned as if made anew: by room, by quota, and no more than once."""
    large = {"kind": "Job", **named("train", flavor="pair", members=5, script="true")}
    await w.create(f"{LAB}/jobs", large)
    stored = Job.load((await w.store.objects.get(Key("Job", "acme--lab", "train"))).body)
    asks = await ASKS["Job"].of(w.store, stored)
    assert isinstance(asks.wants, Gang)
    decided = fleet.decide_gang(asks.wants)
    assert isinstance(decided, GangDecision)
    flavor = Flavor.load((await w.store.objects.get(Key("Flavor", "", "pair"))).body)
    make = workload.Make(flavor, {}, await workload.terms_of(w.store, "acme--lab"))
    context = SimpleNamespace(fleet=fleet, capacity=w.store.capacity, objects=w.store.objects, clock=w.clock)
    parts = {rank: (member, make) for rank, member in enumerate(decided.members)}
    await workload.take_all(context, stored, parts=parts)  # type: ignore[arg-type]
    before = arrays(fleet)
    assert not (await told(w, vm()))["fits"]
    said = await job(w, 5)
    assert (said["fits"], said["stands"]) == (True, ["h1", "h2", "h3"])
    assert not (await job(w, 5, name="other"))["fits"]
    now = (await w.call("GET", f"{BASE}/tenants/acme")).json
    now["spec"]["quota"] = {"devices": {"H100": 10}, "jobs": 1}
    assert (await w.call("PUT", f"{BASE}/tenants/acme", now)).code == 200
    assert (await job(w, 5))["hindrances"] == []
    found = await job(w, 6)
    assert [one["message"].rpartition(": ")[2] for one in found["hindrances"]] == ["2 more do not fit"]
    for name, array in arrays(fleet).items():
        assert np.array_equal(array, before[name]), name


async def test_what_finds_no_room_is_priced_by_what_is_there(w: World, fleet: FleetFeed) -> None:
    """A flavor of any model costs what nearly all devices are that it might have."""
    flavors = f"{BASE.replace('v1alpha1', 'v1beta1')}/flavors"
    await w.create(flavors, named("any", cores=512, memory="4Gi", devices={"count": 2}))
    said = await told(w, vm(flavor="any"))
    (line,) = (one for one in said["price"]["lines"] if one["meter"] == "devices")
    assert (said["fits"], line["model"], line["amountMicro"]) == (False, "H100", 2 * 2_500_000)


async def test_an_instance_that_finds_no_room_costs_its_part(w: World, fleet: FleetFeed) -> None:
    """Of the device that it would be cut from, and not all of that."""
    await stand(w, "cut", inventory(gpus=1, partitions={"H100": tables.known()["H100-80GB"]}))
    flavors = f"{BASE.replace('v1alpha1', 'v1beta1')}/flavors"
    part = {"count": 1, "model": "H100", "profile": "3g.40gb"}
    await w.create(flavors, named("slice", cores=64, memory="4Gi", devices=part))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while fleet.arrays.row("cut") is None:
            await asyncio.sleep(0)
    said = await told(w, vm(flavor="slice"))
    (line,) = (one for one in said["price"]["lines"] if one["meter"] == "devices")
    assert (said["fits"], line["amountMicro"]) == (False, 1_250_000)


async def test_the_dry_run_of_a_consolidation_says_its_plan_and_leaves_nothing(w: World, fleet: FleetFeed) -> None:
    """As kubectl create --dry-run=server does; arrays are as they were."""
    before, path = arrays(fleet), f"{BASE}/consolidations"
    found = (await w.call("POST", f"{path}?dryRun=All", named("tidy", empty={"hosts": ["h1"]}))).json
    assert (found["status"]["phase"], found["status"]["hosts"], found["status"]["moves"]) == ("Planned", ["h1"], 0)
    reply = await w.call("POST", f"{path}?dryRun=All", named("tidy", empty={"hosts": ["none"]}))
    assert (reply.code, reply.json["status"]["conditions"][0]["reason"]) == (201, "HostNotFound")
    assert (await w.call("GET", path)).json["items"] == []
    assert all(np.array_equal(value, before[name]) for name, value in arrays(fleet).items())


async def test_the_dry_run_of_a_consolidation_waits_until_the_fleet_is_known(w: World) -> None:
    reply = await w.call("POST", f"{BASE}/consolidations?dryRun=All", named("tidy", empty={"count": 1}))
    assert (reply.code, "Retry-After" in {name.title() for name in reply.headers}) == (503, True)


async def test_what_is_in_the_way_of_a_gang_is_told_together(w: World, fleet: FleetFeed) -> None:
    """How its members are to lie, and the network that they ask for."""
    said = await job(w, 4, subnet="10.1.0.0/16", topology={"level": "leaf", "policy": "required"})
    assert said["refusal"]["remedy"]
    (one,) = said["hindrances"]
    assert one["reason"] == "HostUnaddressed"
    assert one["message"] == "of 3 hosts that could take a member none has an address in 10.1.0.0/16"
    assert one["message"] in said["never"]
    # What keeps it from hosts besides hides neither.
    for name in ("h1", "h2", "h3"):
        now = (await w.call("GET", f"{BASE}/hosts/{name}")).json
        now["spec"]["taints"] = [{"key": "slow"}]
        await w.call("PUT", f"{BASE}/hosts/{name}", now)
    await caught_up(w, fleet)
    said = await job(w, 2, subnet="10.1.0.0/16")
    assert "tainted slow" in said["refusal"]["message"]
    assert [one["reason"] for one in said["hindrances"]] == ["HostUnaddressed"]


async def test_where_some_hosts_have_an_address_nobody_knows_which_they_will_be(w: World, fleet: FleetFeed) -> None:
    said = await job(w, 4, subnet="10.9.0.1/32", topology={"level": "leaf", "policy": "required"})
    assert (said["fits"], said["hindrances"]) == (False, [])


async def test_what_has_room_once_others_have_gone_may_begin(w: World, fleet: FleetFeed) -> None:
    for number, host in enumerate(("h1", "h2", "h3")):
        devices = tuple(f"gpu{n}" for n in range(2 if host == "h1" else 4))
        fleet.arrays.hold(f"c{number}", Hold(host, devices, ()))
    said = await told(w, vm())
    assert (said["fits"], said["never"]) == (False, "")


async def test_what_closed_hosts_could_take_may_begin_once_they_are_back(w: World, fleet: FleetFeed) -> None:
    n = fleet.arrays.size
    fleet.arrays.reachable[:n:2], fleet.arrays.schedulable[1:n:2] = False, False
    assert ((await told(w, vm()))["fits"], (await told(w, vm()))["never"]) == (False, "")
    said = await job(w, 2, subnet="10.9.0.1/32")
    assert (said["fits"], said["hindrances"], said["never"]) == (False, [], "")
    assert (await job(w, 9))["never"] == "no hosts would take it as a whole, were all of them empty"
