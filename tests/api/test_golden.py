"""A real kube-apiserver's answers, and ours to the same requests, about the same kind.

``golden/kube/objects.txt`` holds the requests and the answers of the real one, ``golden/kube/asked.txt`` the names
of all that it was asked. Names that are made, times and uids are masked, and of an object's revision is told whether it
moved; where ours says something else on purpose, `DIFFERENCES` says where and why. A difference that is not there any
more fails as one that is new does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import yaml
from pydantic import Field

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import ALL, ApiModel, Column, Key, Kind, Resource, Status
from tests.api.world import Reply, World, world

FOLDER = Path(__file__).parent / "golden" / "kube"
FILE, ASKED = FOLDER / "objects.txt", FOLDER / "asked.txt"
LAB = "/apis/example.com/v1/namespaces/acme--lab"
A = Key("Gadget", "acme--lab", "a")
MASKS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UID"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\bgn-\w{5}\b"), "gn-MADE"),
    (re.compile(r"(?<=current: )\d+"), "N"),
    (re.compile(r"(?<=version: )\d+ \(\d+\)"), "N"),
)
MASKED = {"resourceVersion": "N", "remainingItemCount": "N", "continue": "TOKEN"}
PROTOBUF = "application/vnd.kubernetes.protobuf"


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
_NO_PROTOBUF = "a kind of ours is spoken in JSON and YAML (and a custom one of later Kubernetes)"
_STATUS = "who set a status is told only where somebody applies it: agents write it all day"
_SETS_STATUS = "body.metadata.managedFields[].fieldsV1.f:status"
_AGE = "each kind has a column for its age; what a column says of itself is ours"
_NAMES = "the kind here has no short name and no category; one version is stored, so no hash tells which"
_NAMED = ("body.resources[].shortNames", "body.resources[].categories[]", "body.resources[].storageVersionHash")
_AT_ONCE = "what owns nothing has nothing to wait for: it is gone with the answer"
DIFFERENCES: Mapping[str, Difference] = {
    "create what the schema refuses": differs(
        _SCHEMA, *_WORDS, "body.details.causes[].reason", "body.details.causes[].field"
    ),
    "patch to what the schema refuses": differs(_SCHEMA, *_WORDS),
    "create from what is no JSON": differs("says at which line and column", "body.message"),
    "create from plain text": differs(_NO_PROTOBUF, "body.message"),
    "create from protobuf": differs(_NO_PROTOBUF, "code", "body.code", "body.reason", "body.message"),
    "get as HTML": differs(_NO_PROTOBUF, "body.message"),
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
    "patch the status by the object": differs(
        "what is passed over sets nothing, and moves nothing (nor of later Kubernetes)",
        _SETS_STATUS,
        "body.metadata.resourceVersion",
    ),
    "patch the status by its own path": differs("a status is its controller's, or its agent's", "code", "body"),
    "apply it with force": differs(_STATUS, _SETS_STATUS),
    "delete what has a finalizer": differs(_STATUS, _SETS_STATUS),
    "delete it again": differs(_STATUS, _SETS_STATUS),
    "remove the last finalizer": differs(
        f"the revision is that of the deletion, as watchers are told it; {_STATUS}",
        _SETS_STATUS,
        "body.metadata.resourceVersion",
    ),
    "add a finalizer to what is being deleted": differs("the real one names it twice", "body.details.causes"),
    "get what was deleted in the foreground": differs(_AT_ONCE, "code", "body"),
    "watch from a revision that is gone": differs("says what to do", "event.object.message"),
    "watch as a table": differs(_AGE, "event.object.columnDefinitions", "event.object.rows[].cells"),
    "list as a table": differs(_AGE, "body.columnDefinitions"),
    "list as a table without objects": differs(_AGE, "body.columnDefinitions"),
    "watch by the path": differs("deprecated since Kubernetes 1.11, and asked by no client here", "code", "body"),
    "discover with a bearer that is worth nothing": differs(_NAMES, *_NAMED),
    "discover the version": differs(_NAMES, *_NAMED),
    "discover the core": differs(
        "names its version, and no address: one goes by that which one has",
        "body.apiVersion",
        "body.serverAddressByClientCIDRs",
    ),
    "ask for the version": differs(
        "another program, which says as which Kubernetes it speaks",
        *(f"body.{name}" for name in ("minor", "gitVersion", "gitCommit", "gitTreeState")),
        *(f"body.{name}" for name in ("buildDate", "goVersion", "compiler")),
    ),
    "ask what one may": differs(
        "nobody may do anything to what there is not, and a question is nobody's work",
        "body.metadata.managedFields",
        "body.status.allowed",
        "body.status.reason",
    ),
    "ask for all that one may": differs(
        "the rights of our roles, in the project that was asked about",
        "body.spec.namespace",
        "body.status.resourceRules",
        "body.status.nonResourceRules[].verbs",
        "body.status.nonResourceRules[].verbs[]",
        "body.status.nonResourceRules[].nonResourceURLs",
        "body.status.nonResourceRules[].nonResourceURLs[]",
    ),
    "watch from a revision ahead": differs(
        "a revision that was never given is of a store that is no more: whoever waits for it waits for ever", "body"
    ),
}

UNASKED: Mapping[str, tuple[str, str]] = {
    "resourceVersionMatch=Exact of an older revision is 410": (
        "the past is kept as changes, and what they changed is not",
        "test_pages.test_a_list_of_a_revision",
    ),
    "another may not go on with somebody's list (400)": (
        "a token names a snapshot that is held, and is sealed for who has it",
        "test_pages.test_nobody_goes_on_with_anothers_list",
    ),
    "a page shows a Secret that was written since the list began as it is now, and none that has gone": (
        "its data of then is destroyed",
        "test_secrets.test_a_list_shows_what_has_changed_since_its_snapshot_as_it_is_now",
    ),
    "a watch of Secrets from an earlier revision passes over a change whose data is gone": (
        "its data of then is destroyed; the next change about it follows",
        "test_secrets.test_what_is_past_is_passed_over_and_what_is_there_is_told",
    ),
}
"""What differs on purpose where the file asks nothing: the reason, and the test that sees it."""


Seen = dict[str, int]
"""The revision of each object, by its uid, as it was told last."""

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
    cut: bool = False
    """Whether the real answer was kept to some place, and what is not there is not compared."""


def read() -> list[Case]:
    """The cases of the file, in order."""
    seen: Seen = {}
    return [_case(block, seen) for block in FILE.read_text().split("## ")[1:]]


def _case(block: str, seen: Seen) -> Case:
    asked, arrow, answer = block.partition("\n-> ")
    name, request, *rest = asked.rstrip().splitlines()
    method, _, path = request.partition(" ")
    case = Case(name, method, path if path.startswith("/") else f"{LAB}/{path}")
    for line in rest:
        header = re.fullmatch(r"([a-z-]+):(?: (.*))?", line)
        if line == "cut:":
            case.cut = True
        elif header:
            case.headers[header[1]] = header[2] or ""
        else:
            case.said = line
    if arrow:
        head, _, body = answer.partition("\n")
        code, _, case.media = head.partition(" ")
        case.code, case.body = int(code), parsed(case.media, body.strip().encode(), seen)
    return case


def parsed(media: str, body: bytes, seen: Seen) -> Any:
    """The answer's value; of a stream the list of its events, of text the text."""
    if media == "text/plain":
        return body.decode()
    lines = body.splitlines()
    if not lines or lines[0].startswith(b'{"type"'):
        return [masked(orjson.loads(line), seen) for line in lines]
    return masked(orjson.loads(body) if media != "application/yaml" else yaml.safe_load(body), seen)


def masked(value: Any, seen: Seen) -> Any:
    """Without what is another at each run. An object's revision is whether it is the one that was ``seen`` last."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not (k == "continue" and not v)}
        hidden = {k: MASKED[k] if k in MASKED and v else masked(v, seen) for k, v in kept.items()}
        if "uid" in value and "resourceVersion" in value:
            before, now = seen.get(value["uid"], 0), int(value["resourceVersion"])
            hidden["resourceVersion"] = "THE SAME" if now == before else "LATER" if now > before else "EARLIER"
            seen[value["uid"]] = now
        return hidden
    if isinstance(value, list):
        return [masked(item, seen) for item in value]
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
    raw = said.encode() if media != PROTOBUF else orjson.loads(said).encode()
    return await w.call(case.method, path, raw, headers=given, media=media)


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
def answers() -> dict[str, tuple[Reply, Any]]:
    """Each answer, and its value."""
    seen: Seen = {}
    found = asyncio.run(replay(read()))
    return {name: (reply, parsed(media_of(reply), reply.body, seen)) for name, reply in found.items()}


def media_of(reply: Reply) -> str:
    return reply.headers["content-type"].partition(";")[0]


def where(real: Any, ours: Any, at: str = "", *, cut: bool = False) -> set[str]:
    """The places in which two values differ; of one that was ``cut`` those that are there."""
    if isinstance(real, dict) and isinstance(ours, dict):
        if real.get("kind") != ours.get("kind"):
            return {at}
        dot, names = f"{at}." if at else "", {*real} if cut else {*real, *ours}
        places = (where(real.get(k, ...), ours.get(k, ...), f"{dot}{k}", cut=cut) for k in names)
        return set().union(*places)
    if isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        return set().union(*(where(a, b, f"{at}[]", cut=cut) for a, b in zip(real, ours, strict=True)))
    return set() if real == ours else {at}


def compared(case: Case, reply: Reply, ours: Any) -> set[str]:
    media = media_of(reply)
    found = {name for name, differ in (("code", reply.code != case.code), ("media", media != case.media)) if differ}
    if isinstance(case.body, list) and case.body and isinstance(ours, list):
        # The real one's file keeps one event of a stream: there is one like it.
        return found | min(
            (where(case.body[0], event, "event", cut=case.cut) for event in ours), key=len, default={"event"}
        )
    return found | where(case.body, ours, "body", cut=case.cut)


CASES = [case for case in read() if case.code]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_answers_are_the_real_ones(case: Case, answers: dict[str, tuple[Reply, Any]]) -> None:
    known = DIFFERENCES.get(case.name, differs(""))
    reply, ours = answers[case.name]
    assert compared(case, reply, ours) == known.where, reply.body


def test_what_changes_nothing_moves_no_revision(answers: dict[str, tuple[Reply, Any]]) -> None:
    """The comparison above would say so of the real one's, too, if it did."""
    moved = {name: ours["metadata"].get("resourceVersion") for name, (_, ours) in answers.items() if "metadata" in ours}
    assert (moved["replace"], moved["patch nothing"], moved["apply it with force"]) == ("LATER", "THE SAME", "LATER")


def test_all_that_the_real_one_was_asked_is_a_case_or_has_a_reason() -> None:
    asked = [line.partition("\t")[::2] for line in ASKED.read_text().splitlines()]
    assert len({name for name, _ in asked}) == len(asked) == 91
    assert sorted(case for _, case in asked if not case.startswith("- ")) == sorted(case.name for case in CASES)
    assert [name for name, case in asked if case.startswith("- ")] == ["accept protobuf only on CR"]


def test_every_difference_is_of_a_case_and_has_a_reason() -> None:
    assert DIFFERENCES.keys() <= {case.name for case in CASES}
    assert all(one.why and one.where for one in DIFFERENCES.values())


@pytest.mark.parametrize(("why", "test"), UNASKED.values(), ids=UNASKED)
def test_what_else_differs_is_seen_by_a_test(why: str, test: str) -> None:
    module, _, name = test.partition(".")
    assert why
    assert hasattr(import_module(f"tests.api.{module}"), name)
