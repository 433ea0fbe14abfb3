"""Replicas of another revision: they come beside those that serve, which go when others answer in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.notices import Notice
from bessemer.core.resource import Metadata
from bessemer.drivers.engine.fake import Trouble
from bessemer.drivers.process.protocol import End
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.endpoint.placing import owner_of
from bessemer.kinds.inference.endpoint.revisions import (
    KEPT,
    LABEL,
    MODEL_OF,
    marks_of,
    name_of,
    remembered,
    revision_of,
    template_of,
)
from bessemer.kinds.inference.endpoint.shift import DRAINED, Bounds, Shift, room, shift
from bessemer.kinds.inference.endpoint.spec import Endpoint, EndpointSpec, RevisionStatus
from bessemer.kinds.inference.model import Model, ModelSpec
from tests.kinds.five import Life, check_lives_through, distinct
from tests.kinds.points import Point
from tests.kinds.world import World

SPEC = {"model": "smol", "flavor": "serve"}
INTENT = {"model": "d", "alias": "chat", "slots": 4, "contextTokens": 2048, "coresMilli": 1000, "memoryBytes": 1}


class Watched:
    """An endpoint of which it is looked at each moment whether as many answer as should."""

    def __init__(self, world: World, *, least: int) -> None:
        self.world = world
        self.least = least
        self.most = 0

    async def status(self) -> dict[str, Any]:
        found = await self.world.object("Endpoint", "chat")
        assert found is not None
        status: dict[str, Any] = found.get("status", {})
        current = found["metadata"]["generation"] == status.get("observedGeneration")
        return {**status, "current": current}

    async def look(self) -> dict[str, Any]:
        claims = await self.world.bodies("Claim")
        there = [one for one in claims if not one["metadata"].get("deletionTimestamp")]
        answer = [one for one in there if one["status"].get("phase") == "Running"]
        assert len(answer) >= self.least, [one["status"].get("phase") for one in claims]
        self.most = max(self.most, len(claims))
        return await self.status()

    async def rolled(self, replicas: int) -> bool:
        """Whether all are of the revision that is wanted, and no other is there."""
        status = await self.look()
        claims = await self.world.bodies("Claim")
        revisions = {one["metadata"]["labels"][LABEL] for one in claims}
        whole = status["current"] and status.get("updatedReplicas", replicas) == replicas == len(claims)
        ready = status.get("readyReplicas") == replicas and revisions == {await self.revision()}
        return bool(whole and ready and progress(status) in (None, "Complete"))

    async def revision(self) -> str:
        """That of the spec."""
        found = await self.world.object("Endpoint", "chat")
        assert found is not None
        return name_of(template_of(Endpoint.model_validate(found)))


def progress(status: Mapping[str, Any]) -> str | None:
    found = [one for one in status.get("conditions", ()) if one["type"] == "Progressing"]
    return found[0]["reason"] if found else None


async def up(world: World, **spec: object) -> None:
    await world.create("Endpoint", "chat", {**SPEC, **spec})
    await world.until_ready("Endpoint", "chat")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"slots": 2}, ("intent", "slots")),
        ({"contextTokens": 512}, ("intent", "contextTokens")),
        ({"flavor": "more"}, ("flavor",)),
        ({"engine": {"name": "llamacpp", "arguments": {"temp": 0}}}, ("intent", "arguments")),
    ],
)
async def test_what_replicas_are_made_of_is_replaced_one_by_one(change: dict[str, Any], path: tuple[str, ...]) -> None:
    async with World() as world:
        await world.create("Flavor", "more", {"cores": 2, "memory": "1Gi"}, namespace="")
        await up(world, replicas=3)
        watched, before = Watched(world, least=3), {one["metadata"]["uid"] for one in await world.bodies("Claim")}
        first = await watched.revision()
        assert not {"revision", "revisions", "updatedReplicas"} & (await watched.status()).keys(), "there is but one"
        await world.patch("Endpoint", "chat", **change)
        await world.until(lambda: watched.rolled(3))
        after = await world.bodies("Claim")
        assert before.isdisjoint(one["metadata"]["uid"] for one in after)
        assert watched.most == 4, "one more than are wanted"
        for claim in after:
            value: Any = claim["spec"]
            for part in path:
                value = value[part]
            assert value == next(iter(change.values())) or path[-1] == "arguments"
        status = await watched.status()
        assert [one["number"] for one in status["revisions"]] == [1, 2]
        assert status["revisions"][0]["revision"] == first != status["revision"]
        assert status["phase"] == "Ready"
        starts = world.hosts["h1"].engine.starts
        await world.crash()
        await world.until(lambda: watched.rolled(3))
        assert world.hosts["h1"].engine.starts == starts == 6


async def test_what_is_told_of_it_while_it_lasts() -> None:
    async with World() as world:
        await up(world, replicas=2)
        watched, said = Watched(world, least=2), set[tuple[str, str]]()
        await world.patch("Endpoint", "chat", slots=2)

        async def rolled() -> bool:
            status = await watched.look()
            said.add((str(progress(status)), status.get("message", "")))
            return await watched.rolled(2)

        await world.until(rolled)
        assert ("Updating", "1 of 2 replicas are of the new revision, 2 of another") in said
        assert {word for word, _ in said} <= {"None", "Updating", "Complete"}


async def test_a_revision_that_never_answers_stops_there_and_going_back_heals() -> None:
    async with World() as world:
        await up(world, replicas=2)
        watched, engine = Watched(world, least=2), world.hosts["h1"].engine
        before = {one["metadata"]["uid"] for one in await world.bodies("Claim")}
        engine.trouble = _Always()
        await world.patch("Endpoint", "chat", contextTokens=4096)

        async def stopped() -> bool:
            return progress(await watched.look()) == "NewReplicaFails"

        await world.until(stopped)
        end = world.clock.monotonic() + 600

        async def later() -> bool:
            await watched.look()
            return world.clock.monotonic() > end

        await world.until(later)
        assert watched.most == 3
        status = await watched.status()
        assert "memory limit" in status["message"]
        assert status["phase"] == "Ready", "two answer"
        await world.patch("Endpoint", "chat", contextTokens=2048)
        await world.until(lambda: watched.rolled(2))
        assert {one["metadata"]["uid"] for one in await world.bodies("Claim")} == before
        assert [one["number"] for one in (await watched.status())["revisions"]] == [2, 3]


class _Always(dict[str, Trouble]):
    """Every engine that is started from now on dies while it loads."""

    def pop(self, *_args: object) -> Trouble:  # type: ignore[override]
        return Trouble(ends=End.OUT_OF_MEMORY)

    def get(self, *_args: object) -> Trouble:  # type: ignore[override]
        return Trouble(ends=End.OUT_OF_MEMORY)


async def test_without_room_it_says_so_and_with_one_missing_it_goes_on() -> None:
    async with World() as world:
        await world.create("Flavor", "half", {"cores": 8, "memory": "1Gi"}, namespace="")
        await up(world, replicas=2, flavor="half")
        watched = Watched(world, least=2)
        await world.patch("Endpoint", "chat", slots=2)

        async def stuck() -> bool:
            return progress(await watched.look()) == "NoRoom"

        await world.until(stuck)
        status = await watched.status()
        assert "spec.update.maxUnavailable" in status["message"]
        assert status["phase"] == "Ready"
        watched.least = 1
        await world.patch("Endpoint", "chat", update={"maxSurge": 0, "maxUnavailable": 1})
        await world.until(lambda: watched.rolled(2))
        assert watched.most == 2


async def test_turned_back_midway_those_that_were_told_stay() -> None:
    async with World() as world:
        await up(world, replicas=2, update={"drainSeconds": 120})
        watched, before = Watched(world, least=2), {one["metadata"]["uid"] for one in await world.bodies("Claim")}
        await world.patch("Endpoint", "chat", slots=2)

        async def told() -> bool:
            await watched.look()
            return any(Notice.read(one["metadata"].get("annotations") or {}) for one in await world.bodies("Claim"))

        await world.until(told)
        await world.patch("Endpoint", "chat", slots=4)
        await world.until(lambda: watched.rolled(2))
        assert {one["metadata"]["uid"] for one in await world.bodies("Claim")} == before


async def test_a_model_of_other_content_comes_with_a_revision_and_not_before() -> None:
    async with World() as world:
        await up(world)
        watched = Watched(world, least=1)
        await world.patch("Model", "smol", namespace="", sha256="ef" * 32)
        await world.until_ready("Model", "smol", namespace="")
        await world.patch("Endpoint", "chat", replicas=2)
        await world.until(lambda: watched.rolled(2))
        had = {one["spec"]["intent"]["model"] for one in await world.bodies("Claim")}
        assert len(had) == 1, "who joins a revision gets what it has"
        await world.patch("Endpoint", "chat", restartedAt="2026-01-01T00:00:00Z")
        await world.until(lambda: watched.rolled(2))
        assert {one["spec"]["intent"]["model"] for one in await world.bodies("Claim")} == {f"sha256:{'ef' * 32}"}


def an_endpoint(known: Sequence[RevisionStatus] = (), **spec: Any) -> Endpoint:
    made = Endpoint(metadata=Metadata(name="chat"), spec=EndpointSpec.model_validate({**SPEC, **spec}))
    return made.model_copy(update={"status": made.status.model_copy(update={"revisions": list(known)})})


def marked(claim: Claim, of: Endpoint) -> Claim:
    """A claim as it is taken for the endpoint."""
    labels, annotations = marks_of(of)
    update = {"labels": labels, "annotations": annotations}
    return claim.model_copy(update={"metadata": claim.metadata.model_copy(update=update)})


def test_whose_a_model_is_follows_the_content_that_replicas_have() -> None:
    """A project's model that comes under a name after them is not theirs."""
    endpoint = an_endpoint()
    spec = ModelSpec.model_validate({"source": {"path": {"path": "/m.gguf"}}})
    own = Model(metadata=Metadata(name="m", namespace="acme--lab"), spec=spec)
    assert owner_of(own, endpoint, claims=[]) == "acme--lab"
    assert marks_of(endpoint, owner="acme--lab")[0][MODEL_OF] == "acme--lab"
    assert MODEL_OF not in marks_of(endpoint)[0]
    platforms = marked(a_claim(0, phase="Running", told=False), endpoint)
    assert owner_of(own, endpoint, claims=[platforms]) == ""
    other = an_endpoint(slots=1)
    assert owner_of(own, other, claims=[platforms]) == "acme--lab", "these are of another revision"


def test_one_of_before_there_were_revisions_is_of_that_of_now_where_it_is_like_it() -> None:
    plain, claim = an_endpoint(), a_claim(0, phase="Running", told=False)
    first = name_of(template_of(plain))
    assert revision_of(claim, plain) == first
    for other in ({"slots": 1}, {"contextTokens": 99}, {"flavor": "other"}, {"restartedAt": "now"}, {"task": "embed"}):
        assert revision_of(claim, an_endpoint(**other)) == ""
    assert revision_of(claim, an_endpoint(engine={"name": "llamacpp"})) == name_of(
        template_of(an_endpoint(engine={"name": "llamacpp"}))
    )
    assert revision_of(claim, an_endpoint(engine={"name": "vllm"})) == ""
    assert revision_of(marked(claim, plain), an_endpoint(slots=1)) == first


def test_nothing_is_remembered_of_one_alone_and_of_several_what_is_needed() -> None:
    plain = an_endpoint()
    claim = marked(a_claim(0, phase="Running", told=False), plain)
    known = remembered(plain, [claim], now=0.0)
    assert known == []
    for slots in range(5, 40):
        known = remembered(an_endpoint(known, slots=slots), [claim], now=0.0)
    assert len(known) == KEPT + 1
    assert (known[0].number, known[0].template) == (1, template_of(plain)), "that of the replica that stands"
    assert [one.number for one in known[1:]] == list(range(known[-1].number - KEPT + 1, known[-1].number + 1))
    back = remembered(an_endpoint(known), [claim], now=0.0)
    assert (back[-1].template, back[-1].number) == (template_of(plain), known[-1].number + 1)
    assert len({one.revision for one in back}) == len(back)
    assert remembered(an_endpoint(back), [claim], now=9.0) == back


async def _rolled_over(stop: Point | None) -> Life:
    async with World(stop=stop) as world:
        await world.create("Endpoint", "chat", {**SPEC, "replicas": 2, "update": {"drainSeconds": 5}})
        await world.until_ready("Endpoint", "chat")
        watched = Watched(world, least=2)
        await world.patch("Endpoint", "chat", slots=2)
        await world.until(lambda: watched.rolled(2))
        assert watched.most == 3
        await world.delete("Endpoint", "chat")
        await world.until_gone("Endpoint", "chat")
        await world.check_clean()
        return Life(world.points.names, world.crashes)


async def test_stopped_at_some_calls_it_is_rolled_and_never_fewer_answer() -> None:
    await check_lives_through(_rolled_over, chosen=lambda names: distinct(names)[::6])


@pytest.mark.long
async def test_stopped_at_the_calls_of_each_name_it_is_rolled_and_never_fewer_answer() -> None:
    """The first and the last."""
    await check_lives_through(_rolled_over, chosen=distinct)


# --- in small ---------------------------------------------------------------------------------------------------


def a_claim(number: int, *, phase: str, told: bool) -> Claim:
    annotations = Notice(100, "others answer", DRAINED).annotations() if told else {}
    body = {
        "metadata": {"name": f"endpoint-chat-{number}", "uid": f"c-{number}", "annotations": annotations},
        "spec": {
            "host": "h1",
            "tenant": "acme",
            "workload": {"kind": "Endpoint", "name": "chat", "uid": "e", "replica": number},
            "flavor": "serve",
            "intent": INTENT,
        },
        "status": {"phase": phase},
    }
    return Claim.model_validate({"apiVersion": "bessemer.dev/v1alpha1", "kind": "Claim", **body})


def test_who_is_stopped_for_another_is_not_counted_on() -> None:
    """A gateway has nothing new for one that was told; what answers of before stays until another does."""
    new = a_claim(1, phase="Running", told=False)
    stopped = new.model_copy(
        update={"metadata": new.metadata.model_copy(update={"annotations": Notice(100, "for another").annotations()})}
    )
    before = [a_claim(0, phase="Running", told=False)]
    parts = shift([*before, stopped], bounds=Bounds(1), moved=frozenset(), old={"c-0"})
    assert parts.old == before
    assert not parts.drained
    assert shift([*before, new], bounds=Bounds(1), moved=frozenset(), old={"c-0"}).drained == before
    # Nor is it the one that stays where one too many is there.
    assert shift([*before, stopped], bounds=Bounds(1), moved=frozenset()).staying == before


class Small:
    """Replicas as three facts each: of which revision, in which phase, whether told. A turn is one of the controller;
    between two of them anything may happen that hosts do."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.wanted_revision = 0
        self.replicas: dict[int, tuple[int, str, bool]] = {}

    def parts(self) -> Shift:
        claims = [a_claim(n, phase=phase, told=told) for n, (_, phase, told) in self.replicas.items()]
        old = {f"c-{n}" for n, (revision, _, _) in self.replicas.items() if revision != self.wanted_revision}
        return shift(claims, bounds=self.bounds, moved=frozenset(), old=old)

    def turn(self) -> None:
        before, parts = self.answering(), self.parts()
        told = {one.spec.workload.replica for one in parts.drained}
        spared = {one.spec.workload.replica for one in parts.spared}
        stay = {int(uid.removeprefix("c-")) for uid in parts.stay}
        self.replicas = {
            n: (revision, phase, n in told or (mark and n not in spared))
            for n, (revision, phase, mark) in self.replicas.items()
            if n in stay
        }
        least = max(0, self.bounds.wanted - self.bounds.unavailable)
        assert self.answering() >= min(least, before), "fewer answer than may, by our doing"
        mixed = any(revision != self.wanted_revision for revision, _, _ in self.replicas.values())
        others = len(self.replicas) - len(parts.staying) if mixed else None
        for _ in range(room(parts, bounds=self.bounds, leaving=0, others=others)):
            number = next(n for n in range(len(self.replicas) + 1) if n not in self.replicas)
            self.replicas[number] = (self.wanted_revision, "Starting", False)

    def answering(self) -> int:
        """Those that answer, and were not told that they end."""
        return sum(phase == "Running" and not told for _, phase, told in self.replicas.values())

    def end_told(self) -> None:
        self.replicas = {n: one for n, one in self.replicas.items() if not one[2]}

    def settle(self) -> None:
        """All that starts answers, all that was told ends, until nothing moves."""
        for _ in range(100):
            before = dict(self.replicas)
            self.turn()
            self.end_told()
            self.replicas = {n: (revision, "Running", told) for n, (revision, _, told) in self.replicas.items()}
            if before == self.replicas:
                return
        raise AssertionError("it never comes to an end")


STEPS = st.one_of(
    st.tuples(st.just("revision"), st.integers(0, 2)),
    st.tuples(st.just("wanted"), st.integers(0, 5)),
    st.tuples(st.just("bounds"), st.sampled_from([(1, 0), (0, 1), (2, 0), (1, 2), (3, 3)])),
    st.tuples(st.sampled_from(["Running", "Lost", "Starting", "Failed"]), st.integers(0, 7)),
    st.tuples(st.sampled_from(["turn", "end"]), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_whatever_changes_no_answer_is_lost_by_us_and_the_wanted_revision_comes(steps: list[tuple[str, Any]]) -> None:
    small = Small(Bounds(2))
    small.settle()
    for word, value in steps:
        if word == "revision":
            small.wanted_revision = value
        elif word == "wanted":
            small.bounds = Bounds(value, small.bounds.surge, small.bounds.unavailable)
        elif word == "bounds":
            small.bounds = Bounds(small.bounds.wanted, *value)
        elif word == "end":
            small.end_told()
        elif word != "turn" and value in small.replicas:
            revision, _, told = small.replicas[value]
            small.replicas[value] = (revision, word, told)
        small.turn()
    small.settle()
    assert [revision for revision, _, _ in small.replicas.values()] == [small.wanted_revision] * small.bounds.wanted


def test_a_name_is_of_what_replicas_are_made_of_and_of_nothing_else() -> None:
    def name(**spec: Any) -> str:
        said = EndpointSpec.model_validate({**SPEC, **spec})
        return name_of(template_of(Endpoint(metadata=Metadata(name="chat"), spec=said)))

    plain = name()
    for same in ({"replicas": 9}, {"priority": 3}, {"fallbacks": ["b"]}, {"update": {"maxSurge": 2}}):
        assert name(**same) == plain
    others = [{"model": "m"}, {"flavor": "f"}, {"slots": 1}, {"contextTokens": 99}, {"adapters": ["a"]}]
    others += [{"engine": {"name": "vllm"}}, {"restartedAt": "now"}]
    assert len({plain, *(name(**other) for other in others)}) == len(others) + 1
    loads = {"engine": {"name": "vllm", "arguments": {"enable-lora": True}}}
    assert name(**loads, adapters=["a"]) == name(**loads), "it takes them while it runs"
