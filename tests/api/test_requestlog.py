"""The request log: each write and each refusal by id, asker and object; no secret, and no more than a disk bears."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from bessemer.api.requestlog import REFUSED_EACH, WINDOW_SECONDS
from bessemer.core.clock import FakeClock
from tests.api.world import BASE, PASSWORD, World, instance, named, world

LAB, THEIRS = (f"{BASE}/namespaces/{project}/instances" for project in ("acme--lab", "other--lab"))
Lines = list[Any]


def told(logs: Lines, *, level: str = "info") -> Lines:
    return [line for line in logs if line["event"] == "request" and line["log_level"] == level]


async def test_a_write_is_told_with_its_request_and_its_object(w: World) -> None:
    mia = await w.login("mia")
    with capture_logs() as logs:
        made = await w.call("POST", LAB, instance("vm"), token=mia, headers={"x-request-id": "the-one"})
        await w.call("GET", f"{LAB}/vm", token=mia)
        change = {"spec": {"running": False}}
        await w.call("PATCH", f"{LAB}/vm", change, token=mia, media="application/merge-patch+json")
        gone = await w.call("DELETE", f"{LAB}/vm", token=mia)
    create, patch, delete = told(logs)
    assert {name: create[name] for name in ("request_id", "user", "verb", "path", "status", "object_uid")} == {
        "request_id": "the-one",
        "user": "user:mia",
        "verb": "POST",
        "path": LAB,
        "status": 201,
        "object_uid": made.json["metadata"]["uid"],
    }
    assert create["ms"] >= 0
    assert [line["verb"] for line in (patch, delete)] == ["PATCH", "DELETE"]
    assert {line["object_uid"] for line in (patch, delete)} == {create["object_uid"]}
    assert delete["request_id"] == gone.headers["x-request-id"]
    (read,) = told(logs, level="debug")
    assert (read["verb"], read["object_uid"]) == ("GET", create["object_uid"])


async def test_an_agents_report_is_told_by_its_object(w: World) -> None:
    agent = await w.host("a")
    body = {"metadata": {"name": "a"}, "status": {"report": {"kernel": "6.1"}}}
    with capture_logs() as logs:
        reply = await w.call("PUT", f"{BASE}/hosts/a/status", body, peer=agent)
    (line,) = told(logs)
    assert (line["user"], line["object_uid"]) == ("agent:a", reply.json["metadata"]["uid"])


async def test_a_refusal_is_told_also_of_a_read(w: World) -> None:
    mia = await w.login("mia")
    with capture_logs() as logs:
        await w.call("GET", f"{THEIRS}/vm", token=mia)
        await w.call("GET", f"{LAB}/vm", peer=None)
        await w.call("POST", LAB, instance("vm", flavor=7), token=mia)
    assert [(line["user"], line["verb"], line["status"]) for line in told(logs)] == [
        ("user:mia", "GET", 404),
        ("", "GET", 401),
        ("user:mia", "POST", 422),
    ]
    assert all(line["request_id"] and not line["object_uid"] for line in told(logs))


async def test_no_secret_stands_in_it(w: World) -> None:
    with capture_logs() as logs:
        mia = await w.login("mia")
        wrong = {"user": "mia", "password": "not this one"}
        assert (await w.call("POST", "/login", wrong, peer=None)).code == 401
        await w.create(f"{BASE}/namespaces/acme--lab/apikeys", named("k"), token=mia)
        key = await w.call("POST", f"{BASE}/namespaces/acme--lab/apikeys/k/token", {}, token=mia)
        link = await w.call("POST", f"{BASE}/users/mia/signinlink", {})
        await w.call("GET", f"{THEIRS}?token={mia}", token=mia)
        await w.call("GET", f"{LAB}/vm", token="bss_made-up")
    assert len(told(logs)) >= 6
    text = repr(logs)
    for secret in (mia, PASSWORD, "not this one", key.json["token"], link.json["secret"], "bss_made-up", "?"):
        assert secret not in text


async def test_nobody_fills_the_disk_with_refusals() -> None:
    clock = FakeClock()
    async with world(clock) as w:
        mia = await w.login("mia")
        with capture_logs() as logs:
            for _ in range(REFUSED_EACH + 7):
                await w.call("GET", f"{THEIRS}/vm", token=mia)
            await w.call("GET", f"{LAB}/vm", peer=None)
            assert len(told(logs)) == REFUSED_EACH + 1, "who asks too often takes nobody else's lines"
            await w.create(LAB, instance("vm"), token=mia)
            assert told(logs)[-1]["status"] == 201, "what is written is told all the same"
            await clock.advance(WINDOW_SECONDS)
            await w.call("GET", f"{THEIRS}/vm", token=mia)
        (left,) = [line for line in logs if line["event"] == "refusals left out"]
        assert (left["user"], left["count"]) == ("user:mia", 7)
        assert told(logs)[-1]["status"] == 404
