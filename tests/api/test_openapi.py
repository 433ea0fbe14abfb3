"""Every route, asked with what its own description allows and with what it forbids: as the administrator, as a tenant,
as a stranger. Never our fault (5xx), always a Status, in bounded memory, and what was stored can be shown.

schemathesis writes the requests of the routes in the OpenAPI document; the others are in the table of routes alone, and
get any JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from bessemer.api.ca import Peer
from bessemer.api.errors import status_of
from bessemer.api.openapi import document
from bessemer.api.routes import ROUTES, Rule
from bessemer.api.shown import Resources
from bessemer.core.errors import Unavailable
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import VERSION
from bessemer.kinds import KINDS
from tests.api.test_hostile import JSON_VALUES
from tests.api.world import ADMIN, GATEWAY, Reply, World, named
from tests.kinds import pages

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
ANSWER_BYTES_MAX = 1 << 20
GROWTH_BYTES_MAX = 192 << 20
LAB, THERE = "acme--lab", "there"
NAMES = {
    "namespaces": LAB,
    "projects": LAB,
    "tenants": "acme",
    "users": "mia",
    "claims": f"instance-{THERE}-0",
}
COME_WITH_THE_WORLD = {"Tenant", "Project", "User"}
AGENT = Peer("system:agent:there", ("system:agents",), "a" * 64)

AWAY: Mapping[str, str] = {
    # No agent is here: a workload that nobody placed has no Claim, and a Claim's host nobody who shows what it wrote.
    r"GET \S+/(instances|endpoints|vettings|jobs)/[^/]+/log": (
        r"it has no place on a host yet|host \S+ is not connected: .*"
    ),
    # Nothing follows hosts and claims here: what the fleet is like is not known.
    r"GET /fleet": r"The fleet is still being read\.",
    # No issuer is here: the provider that the tests made cannot be asked where its people sign in.
    rf"POST /login/providers/{THERE}(/attempt)?": r"\S+ cannot be reached",
}
"""What is out of reach here, and the words of it: any other 503 is a fault."""

EVERY = [shown.plural for shown in Resources(KINDS).all]

Described = Mapping[tuple[str, str], Any]


@pytest.fixture(scope="module")
def described() -> Described:
    """schemathesis' view of each operation, by (method, path)."""
    found = {}
    for shown in Resources(KINDS).groups().values():
        for result in schemathesis.openapi.from_dict(document(shown, "test")).get_all_operations():
            operation = result.ok()
            found[operation.method, operation.path] = operation
    return found


@pytest.fixture(scope="module")
def warm(described: Described) -> None:
    """What writes the requests is built with the first of them: in a fresh checkout hypothesis' table of Unicode, which
    takes more for a moment than is allowed here. It is there before."""
    operation = next(found for (method, _), found in described.items() if method == "post")
    for mode in GenerationMode:

        @examples(1)
        @given(case=operation.as_strategy(generation_mode=mode), other=JSON_VALUES)
        def draw(case: Any, other: Any) -> None:
            assert case.method == "POST"

        draw()


@contextmanager
def bound() -> Iterator[None]:
    """The process does not grow meanwhile, not even for a moment."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew, at what is held now
    before = peak_bytes()
    yield
    assert peak_bytes() - before < GROWTH_BYTES_MAX


def peak_bytes() -> int:
    said = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(said.partition("VmHWM:")[2].split()[0]) << 10


@pytest.fixture
def bounded(warm: None) -> Iterator[None]:
    with bound():
        yield


def test_a_process_that_grows_is_seen_whatever_was_held_before() -> None:
    for _ in range(2):
        with pytest.raises(AssertionError), bound():
            assert b"x" * (GROWTH_BYTES_MAX + (8 << 20))


@pytest.fixture
async def tenant(w: World) -> str:
    """The bearer of a tenant's administrator, in a world with an object of each kind that people make."""
    specs = pages.contents()
    for kind in KINDS:
        if kind.name in specs.keys() - COME_WITH_THE_WORLD:
            metadata = {"name": THERE, **({"namespace": LAB} if kind.namespaced else {})}
            body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **specs[kind.name]}
            await w.store.objects.create(body, CONTROLLER)
    # What nobody makes, but many ask for: a place, and a session.
    await w.claim(THERE, THERE, LAB)
    session = {"user": "mia", "purpose": "portal", "digest": "0" * 64, "expiresAt": "2999-01-01T00:00:00Z"}
    await w.store.objects.create({**named(THERE), "kind": "Session", "spec": session}, CONTROLLER)
    told = {"metadata": {"name": THERE}, "involvedObject": {"kind": "Instance", "name": THERE}, "reason": "Told"}
    await w.create(f"/api/v1/namespaces/{LAB}/events", told)  # no kind's page shows one
    return await w.login("ann")


def operations(mode: GenerationMode, *, statuses: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(method, path) of all that is described, of statuses those of some kinds; of what takes neither query nor body
    nothing can be wrong."""
    found = []
    for shown in Resources(KINDS).groups().values():
        for path, methods in document(shown, "test")["paths"].items():
            of_status = path.endswith("/status")
            for method, said in methods.items() if not of_status or path.split("/")[-3] in statuses else ():
                loose = method != "parameters" and (said["parameters"] or "requestBody" in said)
                if method != "parameters" and (loose or mode is GenerationMode.POSITIVE):
                    found.append((method, path))
    return found


def examples(count: int) -> settings:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(max_examples=count, deadline=None, suppress_health_check=[*quiet, HealthCheck.data_too_large])


def check(reply: Reply, asked: str) -> None:
    """An answer that is ours: it says what is wrong, or shows what was asked for."""
    assert len(reply.body) < ANSWER_BYTES_MAX, asked
    if reply.code < 400:
        return
    said = reply.json
    assert (said["kind"], said["status"], said["code"]) == ("Status", "Failure", reply.code), asked
    assert said["reason"], asked
    assert said["message"], asked
    if reply.code >= 500:
        assert excused(reply, asked), (asked, reply.body)
        assert "retry-after" in reply.headers, asked


def excused(reply: Reply, asked: str) -> bool:
    """Whether it is one of the two that are no fault: a revision that is still to come, in Kubernetes' words, and what
    nothing here can answer for."""
    causes = [cause["reason"] for cause in reply.json["details"].get("causes", ())]
    if reply.code == 504:
        return causes == ["ResourceVersionTooLarge"]
    path, message = asked.partition("?")[0], reply.json["message"]
    away = [words for route, words in AWAY.items() if re.fullmatch(route, path)]
    return reply.code == 503 and not causes and any(re.fullmatch(words, message) for words in away)


def test_a_503_is_a_fault_but_of_what_is_away() -> None:
    log, host = f"GET /apis/bessemer.dev/v1alpha1/namespaces/{LAB}/instances/x/log", "it has no place on a host yet"
    for asked, message, fine in (
        (f"{log}?follow=1 b''", host, True),
        (f"{log}?follow=1 b''", "the store is closed", False),
        (f"GET /x?y={log} b''", host, False),
    ):
        status = status_of(Unavailable(message))
        reply = Reply(503, {"retry-after": "1"}, orjson.dumps(status))
        with nullcontext() if fine else pytest.raises(AssertionError):
            check(reply, asked)


async def ask(w: World, case: Any, place: str, *, body: Any, token: str) -> None:
    query = urlencode({name: str(value) for name, value in (case.query or {}).items()}, errors="replace")
    path = f"{place}?{query}"
    if "watch=" in query:
        async with w.watch(path, token=token) as events:
            pass
        assert events.code < 500 or events.code == 504, path
        return
    raw = b"" if body is schemathesis.core.NOT_SET else as_bytes(body)
    check(
        await w.call(case.method, path, raw, token=token, media=case.media_type or ""), f"{case.method} {path} {raw!r}"
    )


def as_bytes(body: Any) -> bytes:
    """JSON, where there is JSON for it."""
    try:
        return body if isinstance(body, bytes) else orjson.dumps(body)
    except orjson.JSONEncodeError:
        return repr(body).encode(errors="replace")


async def settled(w: World, case: Any, place: str) -> Any:
    """What the schema allows as an object of that name: else each would be refused for its name alone."""
    if not isinstance(case.body, dict) or case.method == "PATCH":
        return case.body
    name = "acme--made" if place.endswith("/projects") else "made"
    metadata = {"name": name}
    if case.method == "PUT":
        found = await w.call("GET", place)
        assert found.code == 200, f"{place}: nothing is there to be replaced"
        kept = found.json["metadata"]
        metadata = {"name": kept["name"], "resourceVersion": kept["resourceVersion"]}
    return {"metadata": metadata, "spec": case.body.get("spec", {})}


async def check_everybody(w: World, operation: Any, data: st.DataObject, *, mode: GenerationMode, tenant: str) -> None:
    """One request by a tenant and by the administrator; then what is there is shown."""
    case = data.draw(operation.as_strategy(generation_mode=mode))
    collection = operation.path.removesuffix("/status").removesuffix("/{name}").format(namespace=LAB)
    place, body = unquote(case.formatted_path), case.body
    if mode is GenerationMode.POSITIVE:
        plural = collection.rpartition("/")[2]
        place = operation.path.format(namespace=LAB, name=NAMES.get(plural, THERE))
        body = await settled(w, case, place)
    for token in (tenant, ""):
        await ask(w, case, place, body=body, token=token)
    for token in (tenant, ""):
        for accept in (TABLE, "application/json"):
            check(await w.call("GET", collection, token=token, headers={"accept": accept}), collection)


@pytest.mark.real
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("method", "path"), operations(GenerationMode.POSITIVE))
@examples(2)
@given(data=st.data())
async def test_what_the_description_allows(
    w: World, tenant: str, described: Described, method: str, path: str, data: st.DataObject
) -> None:
    await check_everybody(w, described[method, path], data, mode=GenerationMode.POSITIVE, tenant=tenant)


@pytest.mark.real
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("method", "path"), operations(GenerationMode.NEGATIVE))
@examples(2)
@given(data=st.data())
async def test_what_the_description_forbids(
    w: World, tenant: str, described: Described, method: str, path: str, data: st.DataObject
) -> None:
    await check_everybody(w, described[method, path], data, mode=GenerationMode.NEGATIVE, tenant=tenant)


@pytest.mark.long
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), operations(GenerationMode.NEGATIVE, statuses=EVERY))
@examples(100)
@given(data=st.data())
async def test_what_is_described_at_length(
    w: World, tenant: str, described: Described, mode: GenerationMode, method: str, path: str, data: st.DataObject
) -> None:
    """Each described operation, asked with what its description allows and forbids: no 5xx, a Status, within bounds."""
    await check_everybody(w, described[method, path], data, mode=mode, tenant=tenant)


# --- what stands in the table of routes alone ---------------------------------------------------------------------


UNDESCRIBED = [rule for rule in ROUTES if rule.method != "WS" and "{plural}" not in rule.path]
QUERIES = st.dictionaries(
    st.sampled_from(["from", "to", "replica", "follow", "hash", "x"]),
    st.one_of(st.integers().map(str), st.text(max_size=8), st.sampled_from(["true", "1", "now"])),
    max_size=3,
)
BODIES = st.one_of(
    JSON_VALUES.map(orjson.dumps),
    st.binary(max_size=64),
    st.dictionaries(
        st.sampled_from(
            ["user", "password", "link", "purpose", "csr", "token", "signature", "records", "spoolUid", "spec"]
        ),
        JSON_VALUES,
    ).map(orjson.dumps),
)
MEDIAS = st.sampled_from(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/x", ""])
NAMED = st.sampled_from([THERE, "none", "\x00", "\u202e", "a" * 300])


def name_of(rule: Rule) -> str:
    return f"{rule.method} {rule.path}"


async def check_anybody(w: World, rule: Rule, data: st.DataObject, *, tenant: str) -> None:
    name = data.draw(NAMED)
    parts = {"name": NAMES.get(rule.plural, name) if name == THERE else name, "namespace": LAB, "group": "bessemer.dev"}
    path = rule.path.format(**parts, provider=name, version=VERSION, digest="sha256:" + "0" * 64)
    body, media = data.draw(BODIES), data.draw(MEDIAS)
    asked = f"{path}?{urlencode(data.draw(QUERIES), errors='replace')}"
    for peer, token in ((None, ""), (ADMIN, ""), (None, tenant), (GATEWAY, ""), (AGENT, "")):
        reply = await w.call(rule.method, asked, body, peer=peer, token=token, media=media)
        check(reply, f"{rule.method} {asked} {body!r} by {peer}")
        tenant = tenant if reply.code != 200 or rule.method != "DELETE" else await w.login("ann")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("rule", UNDESCRIBED, ids=name_of)
@examples(6)
@given(data=st.data())
async def test_what_is_not_described(w: World, tenant: str, rule: Rule, data: st.DataObject) -> None:
    await check_anybody(w, rule, data, tenant=tenant)


@pytest.mark.long
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("rule", UNDESCRIBED, ids=name_of)
@examples(300)
@given(data=st.data())
async def test_what_is_not_described_at_length(w: World, tenant: str, rule: Rule, data: st.DataObject) -> None:
    """Each other route, asked with random JSON by every role: no 5xx, a Status, bounded memory."""
    await check_anybody(w, rule, data, tenant=tenant)
