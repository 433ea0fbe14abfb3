"""A real kube-apiserver's answers, and ours to the same requests, about the same kind.

``golden/kube/objects.txt`` holds the requests and the answers of the real one. Names that are made, times, uids and
revisions are masked; where ours says something else on purpose, `DIFFERENCES` says where and why. A difference that is
not there any more fails as one that is new does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import yaml
from pydantic import Field

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import ALL, ApiModel, Column, Key, Kind, Resource, Status
from tests.api.world import Reply, World, world

FILE = Path(__file__).parent / "golden" / "kube" / "objects.txt"
LAB = "/apis/example.com/v1/namespaces/acme--lab"
A = Key("Gadget", "acme--lab", "a")
MASKS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UID"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\bgn-\w{5}\b"), "gn-MADE"),
    (re.compile(r"(?<=current: )\d+"), "N"),
    (re.compile(r"(?<=(?:ccepted|include): )application/.*"), "MEDIA"),
)
MASKED = {"resourceVersion": "N", "remainingItemCount": "N", "continue": "TOKEN"}


# --- the kind that the real one was asked about -----------------------------------------------------------------------


class Port(ApiModel):
    port: int
    name: str


class GadgetSpec(ApiModel):
    size: int = Field(ge=0)
    color: str = "red"
    ports: list[Port] | None = None


class GadgetStatus(Status):
    ready: str | None = None


class Gadget(Resource[GadgetSpec, GadgetStatus]):
    """A thing to ask about."""

    KIND = "Gadget"

    status: GadgetStatus = Field(default_factory=GadgetStatus)


GADGET: Kind[Any, Gadget] = Kind(
    resource=Gadget,
    plural="gadgets",
    namespaced=True,
    rights={"admin": ALL},
    columns=(
        Column(name="Size", type="integer", value=lambda body: body["spec"]["size"]),
        Column(name="Ready", value=lambda body: body.get("status", {}).get("ready")),
    ),
    group="example.com",
    version="v1",
)


# --- what differs, and why --------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    why: str
    where: frozenset[str]


def differs(why: str, *where: str) -> Difference:
    return Difference(why, frozenset(where))


_SCHEMA = "the schema's words are ours, each with the place in the list and what would be right; several in our order"
_ROUTE = "what is not there is a Status that every client can read, also where the route is not"
_REVISION = "a parameter that cannot be read is the client's mistake, and no defect of the server"
_PATCHED = "a refusal names the object"
_PRECONDITION = "a precondition is refused in the same words by every write, since the store's transaction decides it"
_WORDS = ("body.message", "body.details.causes[].message")
_AT_ONCE = "what owns nothing has nothing to wait for: it is gone with the answer"
DIFFERENCES: Mapping[str, Difference] = {
    "create what the schema refuses": differs(
        _SCHEMA, *_WORDS, "body.details.causes[].reason", "body.details.causes[].field"
    ),
    "patch to what the schema refuses": differs(_SCHEMA, *_WORDS),
    "create from what is no JSON": differs("says at which line and column", "body.message"),
    "create with an unknown field": differs(
        "a field that nobody knows is refused unless the client asks for less: a typo is not lost", "code", "body"
    ),
    "get a resource that is not there": differs(_ROUTE, "media", "body"),
    "get a group that is not there": differs(_ROUTE, "media", "body"),
    "get a subresource that is not there": differs(
        "the route is not there, whatever the object", "body.message", "body.details"
    ),
    "get at a revision that is none": differs(_REVISION, "code", "body.code", "body.reason"),
    "list at a revision that is none": differs(_REVISION, "code", "body.code", "body.reason"),
    "list on from a token that is none": differs("our tokens are no JSON", "body.message"),
    "list metadata": differs(
        "how many follow is told in every shape (and by later Kubernetes)", "body.metadata.remainingItemCount"
    ),
    "replace a collection": differs(
        "a method that is not there is 405 (and of later Kubernetes)",
        "code",
        "body.code",
        "body.reason",
        "body.message",
    ),
    "replace under another uid": differs(_PRECONDITION, "body.message"),
    "delete another uid": differs(_PRECONDITION, "body.message", "body.details"),
    "delete an old revision": differs(_PRECONDITION, "body.message", "body.details"),
    "merge a list": differs("says what a merge patch is, and nothing of Go's types", *_WORDS),
    "patch with a test that fails": differs(_PATCHED, "body.details"),
    "patch a path that is not there": differs(_PATCHED, "body.details"),
    "patch the status by its own path": differs("a status is its controller's, or its agent's", "code", "body"),
    "add a finalizer to what is being deleted": differs("the real one names it twice", "body.details.causes"),
    "delete in the foreground": differs(_AT_ONCE, "body"),
    "get what was deleted in the foreground": differs(_AT_ONCE, "code", "body"),
    "watch from a revision ahead": differs(
        "a revision that was never given is of a store that is no more: whoever waits for it waits for ever", "body"
    ),
}


# --- the replay -------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One request and the real answer; ``body`` None is no answer to compare."""

    name: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    said: str = ""
    code: int = 0
    media: str = ""
    body: Any = None


def read() -> list[Case]:
    """The cases of the file, in order."""
    return [_case(block) for block in FILE.read_text().split("## ")[1:]]


def _case(block: str) -> Case:
    asked, arrow, answer = block.partition("\n-> ")
    name, request, *rest = asked.rstrip().splitlines()
    method, _, path = request.partition(" ")
    case = Case(name, method, path if path.startswith("/") else f"{LAB}/{path}")
    for line in rest:
        header = re.fullmatch(r"([a-z-]+):(?: (.*))?", line)
        if header:
            case.headers[header[1]] = header[2] or ""
        else:
            case.said = line
    if arrow:
        head, _, body = answer.partition("\n")
        code, _, case.media = head.partition(" ")
        case.code, case.body = int(code), parsed(case.media, body.strip().encode())
    return case


def parsed(media: str, body: bytes) -> Any:
    """The answer's value; of a stream the list of its events, of text the text."""
    if media == "text/plain":
        return body.decode()
    lines = body.splitlines()
    if not lines or lines[0].startswith(b'{"type"'):
        return [masked(orjson.loads(line)) for line in lines]
    return masked(orjson.loads(body) if media != "application/yaml" or body.startswith(b"{") else yaml.safe_load(body))


def masked(value: Any) -> Any:
    """Without what is another at each run, and without what is told elsewhere who set it."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != "managedFields" and not (k == "continue" and not v)}
        return {k: MASKED[k] if k in MASKED and v else masked(v) for k, v in kept.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, str):
        for pattern, mask in MASKS:
            value = pattern.sub(mask, value)
    return value


async def ask(w: World, case: Case) -> Reply:
    path = case.path.replace(" ", "%20")
    given = dict(case.headers)
    media = given.pop("content-type", "application/json")
    if not case.said:
        return await w.call(case.method, path, headers=given, media=media)
    stored = await w.store.objects.get(A) if "{revision}" in case.said else None
    said = case.said.replace("{revision}", str(stored.revision)) if stored else case.said
    return await w.call(case.method, path, said.encode(), headers=given, media=media)


async def report(w: World) -> None:
    """The status that the real one took from anybody: here its controller writes it."""
    body = orjson.loads((await w.store.objects.get(A)).body)
    await w.store.objects.replace({**body, "status": {"ready": "yes"}}, CONTROLLER, part="status")


async def replay(cases: list[Case]) -> dict[str, Reply]:
    found = {}
    async with world(more=[GADGET]) as w:
        for case in cases:
            found[case.name] = await ask(w, case)
            if case.name == "patch the status by its own path":
                await report(w)
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, Reply]:
    return asyncio.run(replay(read()))


def where(real: Any, ours: Any, at: str = "") -> set[str]:
    """The places in which two values differ."""
    if isinstance(real, dict) and isinstance(ours, dict):
        if real.get("kind") != ours.get("kind"):
            return {at}
        dot = f"{at}." if at else ""
        places = (where(real.get(k, ...), ours.get(k, ...), f"{dot}{k}") for k in {*real, *ours})
        return set().union(*places)
    if isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        return set().union(*(where(a, b, f"{at}[]") for a, b in zip(real, ours, strict=True)))
    return set() if real == ours else {at}


def compared(case: Case, reply: Reply) -> set[str]:
    media = reply.headers["content-type"].partition(";")[0]
    ours = parsed(media, reply.body)
    found = {name for name, differ in (("code", reply.code != case.code), ("media", media != case.media)) if differ}
    if isinstance(case.body, list) and case.body and isinstance(ours, list):
        # The real one's file keeps one event of a stream: there is one like it.
        return found | min((where(case.body[0], event, "event") for event in ours), key=len, default={"event"})
    return found | where(case.body, ours, "body")


CASES = [case for case in read() if case.code]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_answers_are_the_real_ones(case: Case, answers: dict[str, Reply]) -> None:
    known = DIFFERENCES.get(case.name, differs(""))
    assert compared(case, answers[case.name]) == known.where, answers[case.name].body


def test_every_difference_is_of_a_case_and_has_a_reason() -> None:
    assert DIFFERENCES.keys() <= {case.name for case in CASES}
    assert all(one.why and one.where for one in DIFFERENCES.values())
