"""A tenant's terms at the api: what it may name, what it may do once suspended, and that it learns of nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.resource import Kind
from bessemer.kinds import KINDS
from bessemer.kinds.fields import Name, named, references
from tests.api.world import BASE, GATEWAY, Reply, World, world
from tests.api.world import named as body_named

MERGE = "application/merge-patch+json"
LAB, THEIRS = f"{BASE}/namespaces/acme--lab", f"{BASE}/namespaces/other--lab"
SPECS: dict[str, dict[str, Any]] = {
    "Instance": {"flavor": "small", "image": "micro"},
    "Endpoint": {"flavor": "small", "model": "smol"},
    "ProjectModel": {"source": {"hub": {"repository": "a/b"}}},
    "Vetting": {"flavor": "small", "model": "smol"},
    "Job": {"flavor": "small", "members": 1, "script": "true"},
    "ApiKey": {"endpoints": ["chat"]},
    "ApplicationCredential": {"expiresAt": "2099-01-01T00:00:00Z"},
}
"""A whole spec of each kind of a project that names others."""


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        for name, labels in (("small", {}), ("big", {"tier": "gold"}), ("huge", {"tier": "iron"})):
            spec = {"cpus": 1, "memory": "1Gi"}
            await made.create(f"{BASE}/flavors", {"metadata": {"name": name, "labels": labels}, "spec": spec})
        yield made


async def patch_tenant(w: World, **spec: Any) -> Reply:
    reply = await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": spec}, media=MERGE)
    assert reply.code == 200, reply.body
    return reply


def instance(name: str, flavor: str = "small") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"flavor": flavor, "image": "micro"}}


# --- what may be named ------------------------------------------------------------------------------------------


async def test_what_is_not_allowed_is_refused_by_its_field_with_what_is(w: World) -> None:
    await patch_tenant(w, flavors={"names": ["small"], "matchLabels": {"tier": "gold"}})
    mia = await w.login("mia")
    for number, flavor in enumerate(("small", "big")):
        assert (await w.call("POST", f"{LAB}/instances", instance(f"i{number}", flavor), token=mia)).code == 201
    refused = await w.call("POST", f"{LAB}/instances", instance("c", "huge"), token=mia)
    assert refused.code == 422
    (cause,) = refused.json["details"]["causes"]
    assert cause["field"] == "spec.flavor"
    assert cause["message"] == 'Forbidden: "huge": tenant acme may use small or what bears tier=gold'
    nowhere = await w.call("POST", f"{LAB}/instances", instance("c", "nope"), token=mia)
    assert nowhere.body.replace(b"nope", b"huge") == refused.body, "whether there is such a thing is nobody's to learn"


@pytest.mark.parametrize(
    "labels", [{"-": "a"}, {"a": "b c"}, {"a/b/c": "d"}, {"": "x"}, {f"k{n}": "v" for n in range(17)}]
)
async def test_labels_that_are_none_select_nothing(w: World, labels: dict[str, str]) -> None:
    reply = await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": {"hosts": {"matchLabels": labels}}}, media=MERGE)
    assert reply.code == 422
    assert reply.json["details"]["causes"][0]["field"].startswith("spec.hosts.matchLabels")


async def test_a_priority_above_the_tenants_is_refused_by_its_field(w: World) -> None:
    mia = await w.login("mia")

    async def asks(name: str, priority: int) -> Reply:
        wanted = instance(name)
        return await w.call(
            "POST", f"{LAB}/instances", wanted | {"spec": {**wanted["spec"], "priority": priority}}, token=mia
        )

    for name, priority in (("low", -5), ("plain", 0)):
        assert (await asks(name, priority)).code == 201
    refused = await asks("high", 1)
    assert refused.code == 422
    (cause,) = refused.json["details"]["causes"]
    assert (cause["field"], cause["message"]) == ("spec.priority", "Forbidden: 1: tenant acme may go up to 0")
    await patch_tenant(w, maxPriority=10)
    assert (await asks("high", 10)).code == 201
    await patch_tenant(w, maxPriority=5)
    label = {"metadata": {"labels": {"a": "b"}}}
    assert (await w.call("PATCH", f"{LAB}/instances/high", label, media=MERGE, token=mia)).code == 200


async def test_what_was_named_before_stays_and_a_dry_run_says_the_same(w: World) -> None:
    mia = await w.login("mia")
    assert (await w.call("POST", f"{LAB}/instances", instance("a", "big"), token=mia)).code == 201
    await patch_tenant(w, flavors={"names": ["small"]})
    off = await w.call("PATCH", f"{LAB}/instances/a", {"spec": {"running": False}}, media=MERGE, token=mia)
    assert off.code == 200
    dry = await w.call("POST", f"{LAB}/instances?dryRun=All", instance("b", "big"), token=mia)
    assert dry.code == 422


# --- nothing of others ------------------------------------------------------------------------------------------


def referring() -> Iterator[tuple[Kind[Any, Any], tuple[str, ...], str]]:
    for kind in KINDS:
        if kind.namespaced and not kind.readonly:
            # A Project is looked for by nobody: it is a Model's alone to name one, and its name says whose it is.
            named = references(kind.resource).items()
            yield from ((kind, path, of) for path, of in named if of != "Project")


def test_every_field_that_names_an_object_says_of_which_kind() -> None:
    """By its type: a name is a reference, unless it is one of these."""
    exempt: set[tuple[str, tuple[str, ...]]]
    exempt = {("Tenant", ("spec", field, "names", "*")) for field in ("flavors", "images", "models")}  # one type's
    exempt |= {  # of whatever kind the same body says beside it, or of any
        ("Role", ("spec", "rules", "*", "names", "*")),
        ("RoleBinding", ("spec", "scope", "object", "name")),
        ("ApplicationCredential", ("spec", "names", "*")),
    }
    for kind in KINDS:
        if "spec" not in kind.resource.model_fields:
            continue
        found = set(names_in(kind.resource.model_fields["spec"].annotation, ("spec",)))
        declared = set(references(kind.resource))
        assert {(kind.name, path) for path in found - declared} <= exempt
        assert declared <= found


def names_in(annotation: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of all fields whose type is `Name`, found without asking what they declare."""
    model = getattr(annotation, "model_fields", None)
    if model is not None:
        for field in model.values():
            below = (*path, field.alias)
            if field.annotation is str and any(one in field.metadata for one in get_args(Name)[1:]):
                yield below
            else:
                yield from names_in(field.annotation, below)
        return
    if get_origin(annotation) is Annotated and get_args(annotation)[1] == get_args(Name)[1]:
        yield path
    elif get_origin(annotation) is not dict:
        for part in get_args(annotation):
            yield from names_in(part, (*path, "*") if get_origin(annotation) is list else path)


@pytest.mark.parametrize(("kind", "path", "of"), [*referring()], ids=lambda one: getattr(one, "name", str(one)))
async def test_anothers_object_is_named_like_one_that_is_nowhere(
    w: World, kind: Kind[Any, Any], path: tuple[str, ...], of: str
) -> None:
    """Of each field of each kind: as a create, as a change, and dry; in words, code and headers."""
    facts = next(one for one in KINDS if one.name == of)
    there = f"{THEIRS}/{facts.plural}" if facts.namespaced else f"{BASE}/{facts.plural}"
    await patch_tenant(w, flavors={"names": ["small"]}, images={"names": ["micro"]}, models={"names": ["smol"]})
    if facts.namespaced:
        await w.create(there, {"metadata": {"name": "theirs"}, "spec": SPECS.get(of, {})})
    else:
        specs = {"Flavor": {"cpus": 1, "memory": "1Gi"}, "Image": {}, "Model": MODEL, "Role": {}, "User": {}}
        await w.create(there, {"metadata": {"name": "theirs"}, "spec": specs[of]})
    # A member names nobody but themselves in a key (`test_keyowners`).
    mia, told = await w.login("ann" if kind.name == "ApiKey" else "mia"), []
    for name in ("theirs", "nobody"):
        body = {"metadata": {"name": f"probe-{name}"}, "spec": with_name(SPECS[kind.name], path[1:], name)}
        assert [one[2] for one in named({path: of}, body)] == [name]
        for query in ("?dryRun=All", ""):
            reply = await w.call("POST", f"{LAB}/{kind.plural}{query}", body, token=mia)
            told.append((name, reply))
    half = len(told) // 2
    for (_, left), (_, right) in zip(told[:half], told[half:], strict=True):
        assert left.code == right.code == (201 if of in OWN else 422), left.body
        assert of in OWN or f"tenant acme may use {ALLOWED[of]}" in left.json["details"]["causes"][0]["message"]
        assert plainly(left, "theirs") == plainly(right, "nobody")
        assert left.headers.keys() == right.headers.keys()


ALLOWED = {"Flavor": "small", "Image": "micro", "Model": "smol"}
"""What acme may name of each, where its terms decide."""

OWN = ("Endpoint", "Role", "User")
"""Kinds of which only names are kept: an Endpoint is looked for in one's own project, where it may come to be, and a
Role gives a credential nothing that its owner lacks (`test_references`), and whose key it is gives it no right."""


def with_name(spec: dict[str, Any], path: tuple[str, ...], name: str) -> dict[str, Any]:
    field, *below = path
    if field == "backends":  # instead of a model and a flavor
        return {field: [{below[1]: name}]}
    return {**spec, field: [name] if below == ["*"] else name}


def plainly(reply: Reply, name: str) -> Any:
    """Without what differs between any two: the name itself, uids, revisions, times."""
    found = reply.json
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        found.get("metadata", {}).pop(field, None)
    return str(found).replace(name, "NAME")


async def test_an_owner_in_another_project_is_not_found(w: World) -> None:
    theirs = await w.create(f"{THEIRS}/apikeys", {"metadata": {"name": "k"}, "spec": {}})
    mia, told = await w.login("mia"), []
    for uid in (theirs["metadata"]["uid"], "4a9c2d6e-0000-4000-8000-000000000000"):
        owner = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "ApiKey", "name": "k", "uid": uid}
        body = {"metadata": {"name": "mine", "ownerReferences": [owner]}, "spec": {}}
        told.append((await w.call("POST", f"{LAB}/apikeys", body, token=mia)).body)
    assert told[0] == told[1]
    assert b"not found" in told[0]


@pytest.mark.parametrize("metadata", [{"name": "{}"}, {"generateName": "{}-"}])
async def test_a_collision_of_names_says_nothing_of_others(w: World, metadata: dict[str, str]) -> None:
    eve, told = await w.login("eve"), []
    for name in ("acme--lab", "acme--none"):
        said = {field: value.format(name) for field, value in metadata.items()}
        reply = await w.call("POST", f"{BASE}/projects", {"metadata": said, "spec": {}}, token=eve)
        assert reply.code in (403, 404)
        told.append(_without_suffix(reply.body.decode().replace(name, "NAME")))
    assert told[0] == told[1]
    for path in ("instances", "apikeys"):
        codes = {
            (await w.call("POST", f"{BASE}/namespaces/{project}/{path}", body_named("x"), token=eve)).code
            for project in ("acme--lab", "acme--none")
        }
        assert len(codes) == 1


def _without_suffix(text: str) -> str:
    import re

    return re.sub(r"NAME-[a-z0-9]{5}", "NAME-SUFFIX", text)


# --- owners -----------------------------------------------------------------------------------------------------


async def test_an_owner_stands_once_controls_once_and_is_somebody_else(w: World) -> None:
    mia = await w.login("mia")
    one = (await w.call("POST", f"{LAB}/apikeys", {"metadata": {"name": "one"}, "spec": {}}, token=mia)).json
    two = (await w.call("POST", f"{LAB}/apikeys", {"metadata": {"name": "two"}, "spec": {}}, token=mia)).json

    def owner(of: dict[str, Any], **more: Any) -> dict[str, Any]:
        meta = of["metadata"]
        return {"apiVersion": of["apiVersion"], "kind": "ApiKey", "name": meta["name"], "uid": meta["uid"], **more}

    twice = {"metadata": {"name": "a", "ownerReferences": [owner(one), owner(one)]}, "spec": {}}
    made = await w.call("POST", f"{LAB}/apikeys", twice, token=mia)
    assert made.code == 201
    assert [o["uid"] for o in made.json["metadata"]["ownerReferences"]] == [one["metadata"]["uid"]]
    assert f"duplicate UID(s) observed: {one['metadata']['uid']}" in made.headers["warning"]
    both = [owner(one, controller=True), owner(two, controller=True)]
    refused = await w.call(
        "POST", f"{LAB}/apikeys", {"metadata": {"name": "b", "ownerReferences": both}, "spec": {}}, token=mia
    )
    assert refused.code == 422
    assert "Only one reference can have Controller set to true" in refused.json["message"]
    change = {"metadata": {"ownerReferences": [owner(one)]}}
    itself = await w.call("PATCH", f"{LAB}/apikeys/one", change, media=MERGE, token=mia)
    assert itself.code == 422
    assert "an object cannot own itself" in itself.json["message"]


# --- states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["Suspended", "Closed"])
async def test_the_people_of_a_tenant_that_is_not_active_read(w: World, state: str) -> None:
    mia, ann = await w.login("mia"), await w.login("ann")
    assert (await w.call("POST", f"{LAB}/apikeys", body_named("k"), token=mia)).code == 201
    await patch_tenant(w, state=state)
    assert (await w.call("GET", f"{LAB}/apikeys/k", token=mia)).code == 200
    for method, path, body in (
        ("POST", f"{LAB}/apikeys", body_named("k2")),
        ("PATCH", f"{LAB}/apikeys/k", {"spec": {"disabled": True}}),
        ("DELETE", f"{LAB}/apikeys/k", None),
        ("POST", f"{LAB}/apikeys/k/token", {}),
    ):
        media = MERGE if method == "PATCH" else "application/json"
        reply = await w.call(method, path, body, token=mia, media=media)
        assert reply.code == 403, (method, path)
        assert f"tenant acme is {state.lower()}" in reply.json["message"]
    project = {"metadata": {"name": "acme--new"}, "spec": {}}
    assert (await w.call("POST", f"{BASE}/projects", project, token=ann)).code == 403
    admin = await w.call("POST", f"{LAB}/apikeys", body_named("k2"))
    assert admin.code == 403
    assert f"tenant acme is {state.lower()}" in admin.json["message"], "whoever asks: the store makes nothing new"
    await patch_tenant(w, state="Active")
    assert (await w.call("POST", f"{LAB}/apikeys", body_named("k2"), token=mia)).code == 201


async def test_whether_a_tenant_is_suspended_is_its_own_to_know(w: World) -> None:
    await patch_tenant(w, state="Suspended")
    eve, told = await w.login("eve"), []
    for tenant in ("acme", "nobody"):
        made = {"metadata": {"name": f"{tenant}--new"}, "spec": {}}
        projects = await w.call("POST", f"{BASE}/projects", made, token=eve)
        keys = await w.call("POST", f"{BASE}/namespaces/{tenant}--lab/apikeys", body_named("k"), token=eve)
        told.append([(one.code, one.body.replace(tenant.encode(), b"TENANT")) for one in (projects, keys)])
    assert told[0] == told[1]


async def test_the_use_of_a_tenant_is_its_peoples_to_see(w: World) -> None:
    await patch_tenant(w, quota={"instances": 2})
    await w.create(f"{LAB}/instances", instance("a"))
    mia, eve = await w.login("mia"), await w.login("eve")
    meters = (await w.call("GET", f"{BASE}/tenants/acme/use", token=mia)).json["meters"]
    found = {meter["meter"]: meter for meter in meters}
    assert found["instances"] == {
        "scope": "tenant/acme",
        "meter": "instances",
        "title": "instances",
        "unit": "",
        "used": 1,
        "limit": 2,
    }
    hidden = [(await w.call("GET", f"{BASE}/tenants/{name}/use", token=eve)) for name in ("acme", "none")]
    assert hidden[0].code == hidden[1].code == 404
    assert hidden[0].body.replace(b"acme", b"none") == hidden[1].body


async def test_a_share_of_a_minute_is_a_gateways_to_ask_for() -> None:
    async with world(FakeClock(1_750_000_000)) as w:  # which stands: all of it is within one minute
        await check_shares(w)


async def check_shares(w: World) -> None:
    where = f"{BASE}/projects/acme--lab/shares"
    await patch_tenant(w, quota={"tokensPerMinute": 100})
    for amount, found in ((60, (60, 40)), (60, (0, 0)), (40, (40, 0))):
        reply = await w.call("POST", where, {"meter": "tokens_per_minute", "amount": amount}, peer=GATEWAY)
        assert reply.code == 200
        assert (reply.json["amount"], reply.json["left"]) == found
        assert 0 < reply.json["seconds"] <= 60
        assert bool(reply.json["words"]) == (found[0] == 0)
    wrong: tuple[Any, ...] = ({"meter": "tokens_per_minute", "amount": -1}, {"meter": "instances"}, [])
    for body in wrong:
        assert (await w.call("POST", where, body, peer=GATEWAY)).code == 400
    assert (await w.call("POST", where, {"meter": "instances", "amount": 1}, peer=GATEWAY)).code == 422
    mia = await w.login("mia")
    assert (await w.call("POST", where, {"meter": "tokens_per_minute", "amount": 1}, token=mia)).code == 403
    use = (await w.call("GET", f"{BASE}/tenants/acme/use", token=mia)).json["meters"]
    assert [(one["used"], one["limit"]) for one in use if one["meter"] == "tokens_per_minute"] == [(100, 100)]


async def test_a_share_bears_money_where_that_is_bounded(w: World) -> None:
    where = f"{BASE}/projects/acme--lab/shares"
    rates = {"millionInputTokens": 1_000_000, "millionOutputTokens": 2_000_000}
    await w.create(
        f"{BASE}/priceplans", {"metadata": {"name": "standard"}, "spec": {"currency": "SEK", "rates": rates}}
    )
    await patch_tenant(w, quota={"spendMicro": 100})

    async def state(micro: int, after: int | None) -> dict[str, Any]:
        said = {"holder": "g1", "micro": micro} | ({"after": after} if after is not None else {})
        body = {"meter": "tokens_per_minute", "amount": 5, "money": said}
        reply = await w.call("POST", where, body, peer=GATEWAY)
        assert reply.code == 200
        return dict(reply.json)

    prices = {"currency": "SEK", "input": 1_000_000, "cached": 0, "output": 2_000_000}
    assert (await state(0, None))["money"] == {"prices": prices, "number": 0, "stands": False, "left": 100}
    assert (await state(60, 0))["money"]["left"] == 40
    refused = await state(101, 1)
    assert refused["words"] == (
        "tenant acme: SEK 0.000041 asked, SEK 0.00004 of SEK 0.0001 left for this month (SEK 0.00 spent, "
        "SEK 0.00006 held by gateways); an administrator of the platform may raise the quota"
    )
    mia = await w.login("mia")
    (use,) = (
        one
        for one in (await w.call("GET", f"{BASE}/projects/acme--lab/use", token=mia)).json["meters"]
        if one["meter"] == "spend_micro"
    )
    assert (use["used"], use["held"], use["limit"], use["currency"]) == (0, 60, 100, "SEK")
    for holder, projects in (("g1", ["acme--lab"]), ("g2", [])):
        reply = await w.call("GET", f"{BASE}/usage?holder={holder}", peer=GATEWAY)
        assert (reply.code, reply.json) == (200, {"projects": projects})
    assert (await w.call("GET", f"{BASE}/usage?holder=g1", token=mia)).code == 403
    for wrong in ({"holder": "", "micro": 1}, {"holder": "g", "micro": -1}, {"holder": "g", "micro": 1, "after": -1}):
        body = {"meter": "tokens_per_minute", "amount": 5, "money": wrong}
        assert (await w.call("POST", where, body, peer=GATEWAY)).code == 400


MODEL = {
    "source": {"wheel": {"package": "m", "version": "1.0", "member": "m/m.gguf"}},
    "sha256": "0" * 64,
}
