"""Reviews tell what requests would be told: each answer is held against the request that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from bessemer.api import Limits
from bessemer.api.authn import MASTERS
from bessemer.api.discovery import AGGREGATED
from bessemer.api.protobuf import KINDS as TABLES
from bessemer.api.protobuf import MEDIA
from bessemer.api.questions import (
    ACCESS,
    LOCAL_ACCESS,
    PLACEMENT,
    REVIEWS,
    SELF,
    SELF_ACCESS,
    SELF_RULES,
    TOKEN,
    Review,
)
from bessemer.api.shown import Resources, Shown
from bessemer.core.clock import FakeClock
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import GROUP
from bessemer.kinds import KINDS
from tests.api.test_protobuf import encoded, enveloped
from tests.api.world import ADMIN, BASE, GATEWAY, Reply, World, instance, named, world
from tests.kinds import pages

LAB, THEIRS, NOWHERE = "acme--lab", "other--lab", "other--nope"
KUBERNETES = [review for review in REVIEWS if review is not PLACEMENT]
PEOPLE = ("ann", "mia", "rob", "eve", "new")
LOCAL = LOCAL_ACCESS.path.format(namespace=LAB)


async def ask(w: World, review: Review, spec: Any, *, code: int = 201, **options: Any) -> Any:
    """The status of a review's answer, or the Status of its refusal."""
    path = review.path.format(namespace=LAB)
    reply = await w.call("POST", path, {} if spec is None else {"spec": spec}, **options)
    assert reply.code == code, reply.body
    return reply.json["status"] if code == 201 else reply.json


def act(verb: str, resource: str, **fields: str) -> dict[str, Any]:
    plural, _, subresource = resource.partition("/")
    said = {"verb": verb, "group": GROUP, "resource": plural, "subresource": subresource, **fields}
    return {"resourceAttributes": {name: value for name, value in said.items() if value}}


def visit(path: str, verb: str = "get") -> dict[str, Any]:
    return {"nonResourceAttributes": {"path": path, "verb": verb}}


async def may(w: World, spec: Any, **options: Any) -> bool:
    return bool((await ask(w, SELF_ACCESS, spec, **options))["allowed"])


async def tokens(w: World) -> dict[str, dict[str, Any]]:
    """How each person asks, and the administrator."""
    return {"admin": {"peer": ADMIN}, **{user: {"token": await w.login(user)} for user in PEOPLE}}


# --- one question -----------------------------------------------------------------------------------------------------


async def furnish(w: World) -> None:
    """An object of each kind that people make, in the project of acme."""
    specs = pages.contents()
    for kind in KINDS:
        if kind.name in specs.keys() - {"Tenant", "Project", "User"}:
            metadata = {"name": "there", **({"namespace": LAB} if kind.namespaced else {})}
            body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **specs[kind.name]}
            await w.store.objects.create(body, CONTROLLER)


NAMES: Mapping[str, str] = {
    "customresourcedefinitions": "instances.bessemer.dev",
    "namespaces": LAB,
    "projects": LAB,
    "tenants": "acme",
    "users": "mia",
}
MADE: Mapping[str, str] = {"projects": "acme--made", "namespaces": "acme--made"}
MAY_SEE: Mapping[str, tuple[str, ...]] = {
    LAB: ("admin", "ann", "mia", "rob"),
    THEIRS: ("admin", "eve"),
    NOWHERE: ("admin", "eve"),
    "": ("admin", "ann", "mia", "rob", "eve", "new"),
}
METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}


async def request(w: World, shown: Shown, verb: str, namespace: str, name: str, **options: Any) -> Reply:
    """The request that a question is about; a write is tried alone."""
    place = f"/namespaces/{namespace}" if namespace else ""
    below = f"/{name}" if verb not in ("list", "create", "deletecollection") else ""
    path = f"{shown.base}{place}/{shown.plural}{below}"
    if verb in ("get", "list"):
        return await w.call("GET", path, **options)
    body = None if METHODS[verb] == "DELETE" else {"metadata": {"name": name} if verb == "create" else {}}
    media = "application/merge-patch+json" if verb == "patch" else "application/json"
    return await w.call(METHODS[verb], f"{path}?dryRun=All", body, media=media, **options)


async def there(w: World, shown: Shown, verb: str, namespace: str, name: str) -> bool:
    """Whether a request could find what it is about."""
    if verb == "create":
        return namespace != NOWHERE
    return verb in ("list", "deletecollection") or (await request(w, shown, "get", namespace, name)).code == 200


async def test_every_cell_is_answered_as_its_request_is(w: World) -> None:
    """Of each kind each verb, for everybody, in their own project, in another's and in one that is not there."""
    await furnish(w)
    wrong, said = [], set()
    for who, how in (await tokens(w)).items():
        for shown in Resources(KINDS).all:
            for namespace in (LAB, THEIRS, NOWHERE) if shown.namespaced else ("",):
                for verb in METHODS:
                    name = MADE.get(shown.plural, "made") if verb == "create" else NAMES.get(shown.plural, "there")
                    if who in MAY_SEE.get(namespace, ()) and not await there(w, shown, verb, namespace, name):
                        continue  # what they might see, and is not there, cannot be tried
                    reply = await request(w, shown, verb, namespace, name, **how)
                    asked = act(verb, shown.plural, group=shown.group, namespace=namespace, name=name)
                    told = await may(w, asked, **how)
                    said.add((shown.kind, told))
                    if told != (reply.code not in (401, 403, 404, 405)):
                        wrong.append((who, verb, shown.plural, namespace, name, reply.code, told))
    assert wrong == []
    assert said == {(shown.kind, told) for shown in Resources(KINDS).all for told in (True, False)}


async def test_lists_over_all_projects_are_for_everybody_and_other_acts_for_who_may_all(w: World) -> None:
    for user in PEOPLE:
        how = {"token": await w.login(user)}
        assert await may(w, act("list", "instances"), **how)
        assert await may(w, act("watch", "instances"), **how)
        assert not await may(w, act("get", "instances"), **how)
        assert not await may(w, act("create", "instances"), **how)
    assert await may(w, act("get", "instances"))
    assert await may(w, act("create", "instances"))


async def test_another_tenants_project_is_answered_as_none(w: World) -> None:
    await w.create(f"{BASE}/namespaces/{THEIRS}/instances", instance("theirs"))
    for user in ("mia", "ann", "new"):
        how = {"token": await w.login(user)}
        for verb in METHODS:
            for resource in ("instances", "instances/log", "instances/console", "instances/status", "claims/secrets"):
                for name in ("", "theirs"):
                    asked = [act(verb, resource, namespace=place, name=name) for place in (THEIRS, NOWHERE, "zzz")]
                    told = [await ask(w, SELF_ACCESS, spec, **how) for spec in asked]
                    assert not any(answer["allowed"] for answer in told)
                    said = [answer["reason"].replace(THEIRS, "X").replace(NOWHERE, "X") for answer in told]
                    assert said[0] == said[1], (verb, resource, name)
        for spec in (act("get", "tenants", name="other"), act("get", "projects", name=THEIRS), act("get", "users")):
            assert not await may(w, spec, **how)
    seen = [await ask(w, SELF_RULES, {"namespace": place}, token=await w.login("mia")) for place in (THEIRS, NOWHERE)]
    assert seen[0] == seen[1]
    assert THEIRS not in str(seen)


OTHER_ACTS = (
    # the question, and whether the administrator, ann, mia and rob may
    (act("get", "instances/log", namespace=LAB), True, True, True, True),
    (act("get", "instances/console", namespace=LAB, name="vm"), True, True, True, False),
    (act("create", "apikeys/token", namespace=LAB), True, True, True, False),
    (act("get", "claims/secrets", namespace=LAB), False, False, False, False),
    (act("update", "instances/status", namespace=LAB), False, False, False, False),
    (act("get", "instances/status", namespace=LAB), True, True, True, True),
    (act("create", "hosts/token", name="h"), True, False, False, False),
    (act("create", "hosts/join", name="h"), False, False, False, False),
    (act("create", "users/password", name="mia"), True, False, True, False),
    (act("create", "users/password"), True, False, False, False),
    (act("get", "projects/invoice", name=LAB), True, True, True, True),
    (act("create", "usage"), False, False, False, False),
    (act("create", "projects"), True, True, False, False),
    (act("create", "projects", name="other--x"), True, False, False, False),
    (act("delete", "projects", name=LAB), True, True, False, False),
    (act("get", "priceplans", name="standard"), True, True, True, True),
    (act("get", "priceplans", name="another"), True, False, False, False),
    (act("*", "instances", namespace=LAB), True, True, True, False),
    (act("get", "*", namespace=LAB), True, False, False, False),
    (act("*", "*", group="*", subresource="*"), False, False, False, False),
    (act("get", "instances", namespace=LAB, version="v1alpha1"), True, True, True, True),
    (act("get", "instances", namespace=LAB, version="v1"), False, False, False, False),
    (act("get", "instances", namespace=LAB, group="apps"), False, False, False, False),
    (act("get", "nonsense", namespace=LAB), False, False, False, False),
    (act("deletecollection", "instances", namespace=LAB), True, True, True, False),
    (act("deletecollection", "instances"), True, False, False, False),
    (act("get", "instances/none", namespace=LAB), False, False, False, False),
    (act("", "", group=""), False, False, False, False),
    (act("create", "selfsubjectaccessreviews", group="authorization.k8s.io"), True, True, True, True),
    (act("create", "subjectaccessreviews", group="authorization.k8s.io"), True, False, False, False),
    (visit("/metrics"), True, False, False, False),
    (visit("/version"), True, True, True, True),
    (visit("/version", "*"), True, True, True, True),
    (visit("/version", "post"), False, False, False, False),
    (visit("/apis/bessemer.dev/v1alpha1"), True, True, True, True),
    (visit("/apis/*"), True, True, True, True),
    (visit("/content/sha256:00"), True, False, False, False),
    (visit(f"{BASE}/users"), False, False, False, False),
    (visit("/../metrics"), False, False, False, False),
    (visit(""), False, False, False, False),
)


async def test_other_acts(w: World) -> None:
    how = {"admin": {}, **{user: {"token": await w.login(user)} for user in ("ann", "mia", "rob")}}
    for spec, *answers in OTHER_ACTS:
        told = [await may(w, spec, **options) for options in how.values()]
        assert told == answers, spec


async def test_a_refusal_says_why_in_ascii_and_short(w: World) -> None:
    mia = await w.login("mia")
    told = await ask(w, SELF_ACCESS, act("delete", "hosts", name="\u202e" * 200), token=mia)
    assert told["reason"].isascii()
    assert len(told["reason"]) <= 500
    told = await ask(w, SELF_ACCESS, act("delete", "tenants", name="acme"), token=mia)
    assert told == {
        "allowed": False,
        "reason": 'tenants.bessemer.dev "acme" is forbidden: User "mia" cannot delete resource "tenants" in API group '
        '"bessemer.dev"',
    }


async def test_what_has_lost_its_tenant_is_told_no(w: World) -> None:
    mia = await w.login("mia")
    spec = act("get", "instances", namespace=LAB)
    assert await may(w, spec, token=mia)
    await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": {"members": []}}, media="application/merge-patch+json")
    assert not await may(w, spec, token=mia)


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", *PEOPLE])
async def test_rules_are_what_single_questions_are_answered(w: World, user: str) -> None:
    """Each rule is a yes, and each verb of a resource that no rule has is a no."""
    how = {"token": await w.login(user)} if user else {}
    status = await ask(w, SELF_RULES, {"namespace": LAB}, **how)
    assert not status["incomplete"]
    told = set()
    for rule in status["resourceRules"]:
        for verb in rule["verbs"]:
            for resource in rule["resources"]:
                told.add((verb, rule["apiGroups"][0], resource))
                for name in rule.get("resourceNames", [""]):
                    spec = act(verb, resource, group=rule["apiGroups"][0], namespace=LAB, name=name)
                    assert await may(w, spec, **how), spec
    for shown in Resources(KINDS).all:
        for resource in (shown.plural, f"{shown.plural}/status"):
            for verb in (*METHODS, "watch"):
                if (verb, shown.group, resource) not in told:
                    assert not await may(w, act(verb, resource, group=shown.group, namespace=LAB), **how)
    for rule in status["nonResourceRules"]:
        for verb in rule["verbs"]:
            for path in rule["nonResourceURLs"]:
                assert await may(w, visit(path, verb), **how), (verb, path)


async def test_rules_need_a_project_and_say_what_they_leave_out(w: World) -> None:
    assert (await ask(w, SELF_RULES, {}, code=400))["message"] == "no namespace on request"
    agent = await w.host("h")
    status = await ask(w, SELF_RULES, {"namespace": LAB}, peer=agent)
    assert status["incomplete"]
    hosts = [rule for rule in status["resourceRules"] if "hosts" in rule["resources"]]
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in hosts] == [
        (["list", "watch"], None),
        (["get", "update"], ["h"]),
    ]
    assert (await ask(w, SELF_RULES, {"namespace": LAB}, peer=GATEWAY))["incomplete"]


async def test_rules_of_many_names_say_that_there_are_more(w: World) -> None:
    for number in range(101):
        await w.create(f"{BASE}/projects", named(f"acme--p{number:03}"))
    status = await ask(w, SELF_RULES, {"namespace": LAB}, token=await w.login("mia"))
    assert status["incomplete"]
    assert "first 100 names" in status["evaluationError"]
    (rule,) = (
        rule for rule in status["resourceRules"] if rule["resources"][0] == "projects" and "get" in rule["verbs"]
    )
    assert len(rule["resourceNames"]) == 100


# --- who --------------------------------------------------------------------------------------------------------------


async def test_who_one_is(w: World) -> None:
    mia = await w.login("mia")
    uid = (await w.call("GET", f"{BASE}/users/mia")).json["metadata"]["uid"]
    info = (await ask(w, SELF, None, token=mia))["userInfo"]
    extra = {"bessemer.dev/tenants": ["acme=member"]}
    assert info == {"username": "mia", "uid": uid, "groups": ["system:authenticated"], "extra": extra}
    info = (await ask(w, SELF, None))["userInfo"]
    assert info == {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
    agent = await w.host("h")
    assert (await ask(w, SELF, None, peer=agent))["userInfo"]["username"] == "system:agent:h"
    assert (await ask(w, SELF, None, peer=GATEWAY))["userInfo"]["username"] == "system:gateway"


async def test_a_token_is_told_to_whose_it_is_and_to_administrators(w: World) -> None:
    mia, again, eve = await w.login("mia"), await w.login("mia"), await w.login("eve")
    for asker, token in (({"token": mia}, mia), ({"token": mia}, again), ({}, mia), ({}, eve)):
        status = await ask(w, TOKEN, {"token": token}, **asker)
        assert status["authenticated"]
        assert status["user"]["username"] == ("eve" if token == eve else "mia")
        assert status["audiences"] == ["bessemer.dev"]
    refused = [await ask(w, TOKEN, {"token": token}, token=mia) for token in (eve, f"{eve}x", "", "bss_x.y", "\0 x")]
    assert all(status == refused[0] for status in refused)
    assert refused[0] == {"authenticated": False, "error": "the token is worth nothing here, or is not yours"}
    rows = [row for row in await w.store.audit.rows() if not row.allowed]
    assert {(row.writer, row.verb, row.key) for row in rows} == {("user:mia", "create", "TokenReview -")}
    assert len(rows) == len(refused)
    agent = await w.host("h")
    assert not (await ask(w, TOKEN, {"token": mia}, peer=agent))["authenticated"]


async def test_a_token_is_never_repeated_nor_kept_by_caches(w: World) -> None:
    mia = await w.login("mia")
    for token in (mia, "bss_made.up"):
        reply = await w.call("POST", TOKEN.path, {"spec": {"token": token}}, token=mia)
        assert token.encode() not in reply.body
        assert reply.headers["cache-control"] == "no-store"
    assert (await w.call("DELETE", "/login", token=mia)).code == 200
    assert not (await ask(w, TOKEN, {"token": mia}))["authenticated"]


async def test_tokens_are_tried_as_seldom_as_passwords() -> None:
    limits = Limits(login_burst=5, bearer_burst=20, bearer_seconds=60.0)
    async with world(FakeClock(), limits=limits) as w:
        mia, ann = await w.login("mia"), await w.login("ann")
        wrong = {"spec": {"token": "bss_x.y"}}
        codes = [(await w.call("POST", TOKEN.path, wrong, token=mia)).code for _ in range(7)]
        assert codes == [201] * 5 + [429] * 2
        assert int((await w.call("POST", TOKEN.path, wrong, token=mia)).headers["retry-after"]) > 0
        assert not (await ask(w, TOKEN, {"token": "bss_x.y"}, token=ann))["authenticated"], "others are let ask"
        known = await ask(w, TOKEN, {"token": ann})
        codes = [(await w.call("POST", TOKEN.path, {"spec": {"token": f"bss_x.{n}"}})).code for n in range(22)]
        assert codes == [201] * 20 + [429] * 2
        assert known == await ask(w, TOKEN, {"token": ann}), "what was good goes on"


async def test_a_token_is_for_our_audience(w: World) -> None:
    mia = await w.login("mia")
    for audiences, good in (([], True), (["bessemer.dev"], True), (["x", "bessemer.dev"], True), (["x"], False)):
        status = await ask(w, TOKEN, {"token": mia, "audiences": audiences}, token=mia)
        assert status["authenticated"] is good
        assert status.get("audiences") == (["bessemer.dev"] if good else None)


# --- about others -----------------------------------------------------------------------------------------------------


async def test_administrators_ask_about_others(w: World) -> None:
    await w.host("h")
    spec = act("create", "instances", namespace=LAB)
    for user, allowed in {"mia": True, "rob": False, "eve": False, "nobody": False, "system:gateway": False}.items():
        assert (await ask(w, ACCESS, {**spec, "user": user}))["allowed"] is allowed, user
    told = await ask(w, ACCESS, {**spec, "user": "nobody"})
    assert told["reason"] == "the user may not sign in"
    own = act("get", "hosts", name="h")
    assert (await ask(w, ACCESS, {**own, "user": "system:agent:h"}))["allowed"]
    assert not (await ask(w, ACCESS, {**own, "user": "system:agent:other"}))["allowed"]
    assert (await ask(w, ACCESS, {**own, "groups": [MASTERS]}))["allowed"]
    assert not (await ask(w, ACCESS, {**own, "groups": ["some"]}))["allowed"]
    assert (await ask(w, ACCESS, {**visit("/metrics"), "user": "admin", "groups": [MASTERS]}))["allowed"]
    assert not (await ask(w, ACCESS, {**visit("/metrics"), "user": "system:portal"}))["allowed"]
    await w.call("PATCH", f"{BASE}/users/mia", {"spec": {"admin": True}}, media="application/merge-patch+json")
    assert (await ask(w, ACCESS, {**own, "user": "mia"}))["allowed"]


async def test_local_questions_are_about_their_project(w: World) -> None:
    spec = {**act("create", "instances"), "user": "mia"}
    assert (await ask(w, LOCAL_ACCESS, spec))["allowed"]
    assert (await ask(w, LOCAL_ACCESS, {**act("create", "instances", namespace=LAB), "user": "mia"}))["allowed"]
    elsewhere = LOCAL_ACCESS.path.format(namespace=THEIRS)
    assert not (await w.call("POST", elsewhere, {"spec": spec})).json["status"]["allowed"]
    wrong = [{**act("create", "instances", namespace=THEIRS), "user": "mia"}, {**visit("/metrics"), "user": "mia"}]
    fields = ["spec.resourceAttributes.namespace", "spec.nonResourceAttributes"]
    for said, field in zip(wrong, fields, strict=True):
        assert (await ask(w, LOCAL_ACCESS, said, code=422))["details"]["causes"][0]["field"] == field


async def test_nobody_else_asks_about_others(w: World) -> None:
    agent = await w.host("h")
    for user in ("ann", "mia"):
        for path in (ACCESS.path, LOCAL, LOCAL_ACCESS.path.format(namespace=THEIRS)):
            reply = await w.call(
                "POST", path, {"spec": {**act("get", "instances"), "user": "eve"}}, token=await w.login(user)
            )
            assert (reply.code, reply.json["message"]) == (403, f'User "{user}" is no administrator')
    assert (await w.call("POST", ACCESS.path, {}, peer=agent)).code == 403


# --- bodies and places ------------------------------------------------------------------------------------------------


async def test_strangers_are_told_nothing(w: World) -> None:
    for review in REVIEWS:
        reply = await w.call("POST", review.path.format(namespace=LAB), {}, peer=None)
        assert (reply.code, reply.json["reason"]) == (401, "Unauthorized")


@pytest.mark.parametrize("review", KUBERNETES, ids=lambda review: review.kind)
async def test_protobuf_and_json_are_answered_alike(w: World, review: Review) -> None:
    specs = {
        SELF: None,
        TOKEN: {"token": "bss_a.b", "audiences": ["bessemer.dev"]},
        SELF_RULES: {"namespace": LAB},
        SELF_ACCESS: act("get", "instances", namespace=LAB),
        ACCESS: {**act("get", "instances", namespace=LAB), "user": "mia"},
        LOCAL_ACCESS: {**act("get", "instances", namespace=LAB), "user": "mia", "groups": ["a", "b"]},
    }
    body = {"metadata": {}} if specs[review] is None else {"metadata": {}, "spec": specs[review]}
    path = review.path.format(namespace=LAB)
    raw = enveloped(review.api_version, review.kind, encoded(body, TABLES[review.api_version, review.kind]))
    both = {"accept": f"{MEDIA},application/json"}
    told = [
        await w.call("POST", path, body),
        await w.call("POST", path, raw, media=MEDIA, headers=both),
        await w.call("POST", path, orjson.dumps(body), media="", headers={"accept": "*/*"}),
        await w.call("POST", path, orjson.dumps(body), media="application/yaml"),
    ]
    assert [(reply.code, reply.headers["content-type"]) for reply in told] == [(201, "application/json")] * 4
    assert all(reply.json == told[0].json for reply in told)
    said = told[0].json
    assert (said["kind"], said["apiVersion"], said.get("spec")) == (
        review.kind,
        review.api_version,
        {"audiences": ["bessemer.dev"]} if review is TOKEN else specs[review],
    )
    assert (await w.call("POST", path, raw, media=MEDIA, headers={"accept": MEDIA})).code == 406
    yaml = await w.call("POST", path, body, headers={"accept": "application/yaml"})
    assert (yaml.code, yaml.headers["content-type"]) == (201, "application/yaml")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({}, 422, "exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        ({"spec": {**act("get", "x"), **visit("/x")}}, 422, "exactly one of"),
        ({"spec": []}, 400, "spec must be an object"),
        ({"spec": {"resourceAttributes": "x"}}, 400, "resourceAttributes must be an object"),
        ({"spec": {"resourceAttributes": {"verb": 5}}}, 422, "spec.resourceAttributes.verb"),
        ({"spec": {"resourceAttributes": {"name": "x" * 254}}}, 422, "Too long"),
        ({"spec": {"nonResourceAttributes": {"path": "/" * 2000}}}, 422, "Too long"),
        ({"kind": "SubjectAccessReview"}, 400, "SelfSubjectAccessReview of authorization.k8s.io/v1 is asked here"),
        ({"kind": {"a": 1}}, 400, "is asked here"),
        ({"apiVersion": "authorization.k8s.io/v1beta1"}, 400, "is asked here"),
        ([], 400, "must be an object"),
    ],
    ids=repr,
)
async def test_what_is_no_question(w: World, body: Any, code: int, words: str) -> None:
    reply = await w.call("POST", SELF_ACCESS.path, body)
    assert reply.code == code
    assert words in reply.json["message"]
    assert len(reply.body) < 4096


async def test_a_field_that_no_review_has_is_named(w: World) -> None:
    """As fields of objects are; a question that was misspelt is not taken for another."""
    visit = {"nonResourceAttributes": {"path": "/version", "verb": "get"}}
    asked = {"spec": {**visit, "typo": 1, "nonResourceAttributes": {**visit["nonResourceAttributes"], "vreb": "x"}}}
    for query in ("", "?fieldValidation=Strict"):
        reply = await w.call("POST", SELF_ACCESS.path + query, asked)
        assert reply.code == 400
        assert reply.json["message"] == (
            'strict decoding error: unknown field "spec.nonResourceAttributes.vreb", unknown field "spec.typo"'
        )
    told = await w.call("POST", f"{SELF_ACCESS.path}?fieldValidation=Warn", asked)
    assert told.code == 201
    assert 'unknown field \\"spec.typo\\"' in told.headers["warning"]
    quiet = await w.call("POST", f"{SELF_ACCESS.path}?fieldValidation=Ignore", asked)
    assert (quiet.code, "warning" in quiet.headers) == (201, False)
    assert (await w.call("POST", SELF.path, {"spec": {"typo": 1}})).json["message"].endswith('unknown field "spec"')
    assert (await w.call("POST", SELF.path, {"spec": {}})).code == 201


async def test_about_others_somebody_is_named(w: World) -> None:
    for spec in (act("get", "x"), {**act("get", "x"), "user": 5}, {**act("get", "x"), "groups": ["a", 5]}):
        assert (await ask(w, ACCESS, spec, code=422))["reason"] == "Invalid"


async def test_reviews_are_asked_and_not_read(w: World) -> None:
    for review in REVIEWS:
        path = review.path.format(namespace=LAB)
        for method in ("GET", "PUT", "DELETE"):
            assert (await w.call(method, path)).code == 405, (method, path)
        assert (await w.call("GET", f"{path}/x")).code == 404


async def test_they_are_discovered_in_both_forms(w: World) -> None:
    groups = {group["name"]: group for group in (await w.call("GET", "/apis")).json["groups"]}
    aggregated = await w.call("GET", "/apis", headers={"accept": AGGREGATED})
    items = {item["metadata"]["name"]: item["versions"] for item in aggregated.json["items"]}
    for review in KUBERNETES:
        assert groups[review.group]["preferredVersion"] == {"groupVersion": review.api_version, "version": "v1"}
        assert (await w.call("GET", f"/apis/{review.group}")).json == groups[review.group]
        listed = (await w.call("GET", f"/apis/{review.api_version}")).json
        assert listed["groupVersion"] == review.api_version
        (entry,) = (one for one in listed["resources"] if one["name"] == review.plural)
        assert (entry["kind"], entry["namespaced"], entry["verbs"]) == (review.kind, review.namespaced, ["create"])
        (version,) = items[review.group]
        (told,) = (one for one in version["resources"] if one["resource"] == review.plural)
        assert told["responseKind"] == {"group": review.group, "version": "v1", "kind": review.kind}
        assert (told["scope"], told["verbs"]) == ("Namespaced" if review.namespaced else "Cluster", ["create"])
    # Ours is one resource of a group that has others.
    listed = (await w.call("GET", f"/apis/{PLACEMENT.api_version}")).json["resources"]
    (entry,) = (one for one in listed if one["name"] == PLACEMENT.plural)
    assert (entry["kind"], entry["namespaced"], entry["verbs"]) == ("PlacementReview", True, ["create"])
    told = [one for version in items[GROUP] for one in version["resources"] if one["resource"] == PLACEMENT.plural]
    assert [one["responseKind"]["version"] for one in told] == ["v1alpha1"]
    versions = [version["version"] for version in groups[GROUP]["versions"]]
    assert len(versions) == len(set(versions))
    assert (await w.call("GET", "/apis/authorization.k8s.io/v2")).code == 404
    assert (await w.call("GET", "/apis/nothing.k8s.io")).code == 404
    core = (await w.call("GET", "/api", headers={"accept": AGGREGATED})).json["items"]
    assert [item["metadata"]["name"] for item in core] == [""]
