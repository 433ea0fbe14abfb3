"""What a service elsewhere is shown: sealed, bound to where it stands, told to gateways alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from bessemer.api.endpointsecrets import FIELD
from bessemer.gateway import outer
from bessemer.kinds.inference.endpoint import forms, prompts
from tests.api.world import ADMIN, GATEWAY, World, world

AT = "/apis/bessemer.dev/v1alpha1/namespaces/acme--lab/endpoints"
SPEC: dict[str, Any] = {"external": {"url": "https://api.example.org/v1", "model": "big-1"}}


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        await made.create(AT, {"metadata": {"name": "big"}, "spec": SPEC})
        yield made


async def told(w: World) -> str:
    reply = await w.call("GET", f"{AT}/big/secret", peer=GATEWAY)
    assert reply.code == 200, reply.body
    secret: str = reply.json["secret"]
    return secret


async def test_it_is_kept_told_to_gateways_and_taken_away(w: World) -> None:
    assert await told(w) == ""
    mia = await w.login("mia")
    marks = []
    for secret in ("sk-one", "sk-two", ""):
        body = {"secret": secret} if secret else {}
        assert (await w.call("POST", f"{AT}/big/secret", body, token=mia)).code == 200
        assert await told(w) == secret
        seen = await w.call("GET", f"{AT}/big", token=mia)
        assert b"sk-" not in seen.body
        marks.append((seen.json["metadata"].get("annotations") or {}).get(forms.SECRET_MARK))
    assert marks[0] != marks[1]
    assert marks[2] is None
    assert b"sk-" not in (await w.call("GET", "/audit")).body


async def test_nobody_else_reads_it_and_readers_set_none(w: World) -> None:
    assert (await w.call("POST", f"{AT}/big/secret", {"secret": "sk-one"})).code == 200
    for asker in ({"peer": ADMIN}, {"token": await w.login("mia")}):
        assert (await w.call("GET", f"{AT}/big/secret", **asker)).code == 403
    assert (await w.call("POST", f"{AT}/big/secret", {"secret": "x"}, token=await w.login("eve"))).code in (403, 404)


async def test_who_writes_the_endpoint_meanwhile_is_in_nobodys_way(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed, put = type(w.store.sealed), type(w.store.sealed).put

    async def between(self: Any, uid: str, name: str, value: bytes) -> None:
        await put(self, uid, name, value)
        stored = orjson.loads((await w.call("GET", f"{AT}/big")).body)
        stored["metadata"]["labels"] = {"a": "b"}
        assert (await w.call("PUT", f"{AT}/big", stored)).code == 200

    monkeypatch.setattr(sealed, "put", between)
    assert (await w.call("POST", f"{AT}/big/secret", {"secret": "sk-one"})).code == 200
    metadata = (await w.call("GET", f"{AT}/big")).json["metadata"]
    assert forms.SECRET_MARK in metadata["annotations"]
    assert metadata["labels"] == {"a": "b"}


async def test_it_is_of_the_place_that_it_was_set_for(w: World) -> None:
    assert (await w.call("POST", f"{AT}/big/secret", {"secret": "sk-one"})).code == 200
    for url, secret in (
        ("https://api.example.org/v1/", "sk-one"),
        ("https://api.example.org/v2", ""),
        ("https://api.example.org/v1/thief", ""),
        ("https://api.example.org", ""),
        ("https://thief.example.org/v1", ""),
        ("http://api.example.org/v1", ""),
        ("https://api.example.org:8443/v1", ""),
        ("https://api.example.org/v1", "sk-one"),
    ):
        merge = "application/merge-patch+json"
        change = {"spec": {"external": {"url": url}}}
        assert (await w.call("PATCH", f"{AT}/big", change, media=merge)).code == 200
        assert await told(w) == secret
        # A gateway that has not heard yet that it was moved back would show it to the thief else.
        reply = await w.call("GET", f"{AT}/big/secret", peer=GATEWAY)
        parts = url.rstrip("/").split("/")
        assert (reply.json["at"], reply.json["path"]) == ("/".join(parts[:3]), "/" + "/".join(parts[3:]))


async def test_one_that_an_older_release_has_kept_is_of_its_host(w: World) -> None:
    uid = (await w.call("GET", f"{AT}/big")).json["metadata"]["uid"]
    await w.store.sealed.put(uid, FIELD, orjson.dumps({"secret": "sk-old", "at": "https://api.example.org"}))
    assert await told(w) == "sk-old"
    assert (await w.call("POST", f"{AT}/big/secret", {"secret": "sk-new"})).code == 200
    change = {"spec": {"external": {"url": "https://api.example.org/v2"}}}
    assert (await w.call("PATCH", f"{AT}/big", change, media="application/merge-patch+json")).code == 200
    assert await told(w) == ""


@pytest.mark.parametrize("body", [{"secret": "a\r\nb: c"}, {"secret": 5}, {"secret": "ä"}, {"other": "x"}])
async def test_what_is_no_secret_is_refused(w: World, body: dict[str, Any]) -> None:
    assert (await w.call("POST", f"{AT}/big/secret", body)).code == 400


async def test_an_endpoint_with_replicas_has_none(w: World) -> None:
    await w.create(AT, {"metadata": {"name": "own"}, "spec": {"model": "smol", "flavor": "small"}})
    assert (await w.call("POST", f"{AT}/own/secret", {"secret": "x"})).code == 422


def test_gateway_and_api_mean_the_same_mark() -> None:
    assert outer.SECRET_MARK == forms.SECRET_MARK


LOGGED: dict[str, Any] = {"s3": {"bucket": "logs", "prefix": "p", "endpoint": "https://s3.example.org"}}
KEYS = {"accessKey": "AKIA1", "secretKey": "wo/rd"}


async def test_keys_of_a_bucket_are_kept_beside_told_to_gateways_and_taken_away(w: World) -> None:
    merge = "application/merge-patch+json"
    assert (await w.call("POST", f"{AT}/big/secret", {"logging": KEYS})).code == 422, "it is logged nowhere"
    assert (await w.call("PATCH", f"{AT}/big", {"spec": {"logging": LOGGED}}, media=merge)).code == 200
    mia = await w.login("mia")
    assert (await w.call("POST", f"{AT}/big/secret", {"secret": "sk-one"}, token=mia)).code == 200
    marks = []
    for said in (KEYS, {**KEYS, "sessionToken": "s"}, {}):
        assert (await w.call("POST", f"{AT}/big/secret", {"logging": said}, token=mia)).code == 200
        reply = await w.call("GET", f"{AT}/big/secret", peer=GATEWAY)
        assert reply.json["logging"] == {"keys": said, "at": "s3:https://s3.example.org/logs"}
        assert reply.json["secret"] == "sk-one"
        seen = await w.call("GET", f"{AT}/big", token=mia)
        assert b"wo/rd" not in seen.body
        marks.append(seen.json["metadata"]["annotations"].get(prompts.KEYS_MARK))
        assert forms.SECRET_MARK in seen.json["metadata"]["annotations"]
    assert marks[0] != marks[1]
    assert marks[2] is None
    assert b"wo/rd" not in (await w.call("GET", "/audit")).body
    assert (await w.call("POST", f"{AT}/big/secret", {"logging": KEYS}, token=await w.login("eve"))).code in (403, 404)


async def test_keys_are_of_the_bucket_that_they_were_set_for(w: World) -> None:
    merge = "application/merge-patch+json"
    assert (await w.call("PATCH", f"{AT}/big", {"spec": {"logging": LOGGED}}, media=merge)).code == 200
    assert (await w.call("POST", f"{AT}/big/secret", {"logging": KEYS})).code == 200
    for change, told_ in (
        ({"prefix": "q"}, KEYS),
        ({"bucket": "thief"}, {}),
        ({"bucket": "logs", "endpoint": "https://thief.example.org"}, {}),
        ({"endpoint": "http://s3.example.org"}, {}),
        ({"endpoint": "https://s3.example.org"}, KEYS),
    ):
        assert (await w.call("PATCH", f"{AT}/big", {"spec": {"logging": {"s3": change}}}, media=merge)).code == 200
        reply = await w.call("GET", f"{AT}/big/secret", peer=GATEWAY)
        assert reply.json["logging"]["keys"] == told_


@pytest.mark.parametrize(
    "said",
    [
        {"accessKey": "a"},
        {"secretKey": "a"},
        {"accessKey": "a", "secretKey": "a\nb"},
        {"accessKey": "a", "secretKey": 5},
        {"other": "x"},
        [],
        "",
        None,
    ],
)
async def test_what_are_no_keys_is_refused(w: World, said: Any) -> None:
    merge = "application/merge-patch+json"
    assert (await w.call("PATCH", f"{AT}/big", {"spec": {"logging": LOGGED}}, media=merge)).code == 200
    assert (await w.call("POST", f"{AT}/big/secret", {"logging": said})).code == 400
    assert (await w.call("POST", f"{AT}/big/secret", {"logging": KEYS, "secret": "x"})).code == 400
