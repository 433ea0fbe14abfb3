"""Prompts that are logged: what may be said of it, and how what gateways say of it becomes an Endpoint's condition."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from bessemer.core.loads import HEARD_SECONDS, LOADS, EndpointLog, LoadReport
from bessemer.core.resource import Key
from bessemer.kinds.inference.endpoint.prompts import PromptLog, log_problems
from bessemer.kinds.inference.logs import DROPPING, DROPPING_SECONDS, TOLD_SECONDS, Logs
from tests.kinds.world import PROJECT, World

KEY = Key("Endpoint", "acme--lab", "chat")
S3: dict[str, Any] = {"bucket": "logs", "prefix": "p", "endpoint": "https://s3.example.org"}
EXTERNAL = {"external": {"url": "https://api.example.org/v1", "model": "m"}}


def log(*, uid: str = "u", dropped: int = 0, reason: str = "", expires: bool = False) -> EndpointLog:
    words = "nobody is there" if reason else ""
    place = {"project": "acme--lab", "name": "chat", "uid": uid}
    return EndpointLog(**place, written=5, dropped=dropped, reason=reason, message=words, expires=expires)


def report(*logs: EndpointLog, holder: str = "g1") -> LoadReport:
    return LoadReport(holder=holder, boot="b", logs=list(logs))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"endpoint": "ftp://x"}, "endpoint"),
        ({"endpoint": "https://"}, "endpoint"),
        ({"endpoint": "https://x:0"}, "endpoint"),
        ({"endpoint": "https://x:99999"}, "endpoint"),
        ({"endpoint": "https://u@x"}, "endpoint"),
        ({"endpoint": "https://x/path"}, "endpoint"),
        ({"endpoint": "https://x?q=1"}, "endpoint"),
        ({"endpoint": "https://x y"}, "endpoint"),
        ({"prefix": "a/../b"}, "prefix"),
        ({"prefix": "a//b"}, "prefix"),
    ],
)
def test_places_that_are_none_are_named(change: dict[str, str], field: str) -> None:
    causes = list(log_problems(PromptLog.model_validate({"s3": {**S3, **change}})))
    assert [cause.field for cause in causes] == [f"spec.logging.s3.{field}"]


@pytest.mark.parametrize("endpoint", ["https://s3.example.org:9000", "https://s3.example.org/", "http://[::1]:9", ""])
def test_places_that_are_some(endpoint: str) -> None:
    assert not list(log_problems(PromptLog.model_validate({"s3": {**S3, "endpoint": endpoint}})))


@pytest.mark.parametrize(
    "change",
    [
        {"sample": 0},
        {"sample": 1.1},
        {"retentionDays": 0},
        {"retentionDays": 4000},
        {"include": "none"},
        {"s3": {"bucket": "Logs"}},
        {"s3": {"bucket": "logs", "prefix": "a b"}},
        {"s3": {"bucket": "logs", "secretKey": "x"}},
    ],
)
def test_what_the_schema_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PromptLog.model_validate({"s3": S3, **change})


def test_what_several_gateways_say_is_one_and_told_when_it_changes() -> None:
    logs = Logs()
    assert logs.of("u", now=0.0) is None
    fine = [report(log(expires=True)), report(log(expires=True), holder="g2")]
    assert logs.look(fine, now=0.0) == [KEY]
    assert logs.look(fine, now=2.0) == []
    assert logs.of("u", now=2.0) == ("", "the bucket itself removes what is older, too")
    failing = [fine[0], report(log(reason="PlaceUnreachable"), holder="g2")]
    assert logs.look(failing, now=4.0) == [KEY]
    assert logs.look(failing, now=500.0) == []
    assert logs.of("u", now=500.0) == ("PlaceUnreachable", "1 of 2 gateways: nobody is there")
    assert logs.look(fine, now=502.0) == [KEY]
    assert logs.look([report(holder="g1")], now=504.0) == []
    assert logs.of("u", now=504.0) is None


def test_what_is_dropped_is_told_now_and_then_and_is_over_after_a_while() -> None:
    logs = Logs()
    logs.look([report(log(dropped=3))], now=0.0)
    assert logs.of("u", now=0.0) == ("", "3 entries were dropped since the gateways began"), "it was before"
    assert logs.look([report(log(dropped=4))], now=2.0) == [KEY]
    assert logs.of("u", now=2.0) == (DROPPING, "4 entries were dropped since the gateways began")
    woken = sum(bool(logs.look([report(log(dropped=5 + now))], now=2.0 + now)) for now in range(2, 62, 2))
    assert woken <= 62 / TOLD_SECONDS
    last = 2.0 + 60.0
    assert logs.look([report(log(dropped=65))], now=last + DROPPING_SECONDS + 1.0) == [KEY]
    later = last + DROPPING_SECONDS + 3.0
    assert logs.look([report(log(dropped=65))], now=later) == []
    assert logs.of("u", now=later) == ("", "65 entries were dropped since the gateways began")


async def condition(world: World) -> dict[str, Any]:
    found = await world.object("Endpoint", "chat")
    assert found is not None
    said = [one for one in found["status"].get("conditions", ()) if one["type"] == "Logging"]
    return said[0] if said else {}


async def test_an_endpoint_says_where_its_prompts_go_and_why_they_do_not() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {**EXTERNAL, "logging": {"s3": S3, "retentionDays": 7}})

        async def is_said(status: str, reason: str) -> None:
            async def holds() -> bool:
                await world.loads.look()
                said = await condition(world)
                return (said.get("status", ""), said.get("reason", "")) == (status, reason)

            await world.until(holds)

        await is_said("Unknown", "NotHeard")
        words = "prompts are logged to s3://logs/p at https://s3.example.org for 7 days"
        assert (await condition(world))["message"] == f"{words}; no gateway has said so yet"
        found = await world.object("Endpoint", "chat")
        assert found is not None
        one = log(uid=found["metadata"]["uid"]).model_copy(update={"project": PROJECT})
        for reason in ("NoKeys", ""):
            note = orjson.dumps(report(one.model_copy(update={"reason": reason})).dump()).decode()
            await world.store.leases.acquire(f"{LOADS}g1", "g1", HEARD_SECONDS * 1000, note=note)
            await is_said(*(("False", "NoKeys") if reason else ("True", "Written")))
        assert (await condition(world))["message"] == words
        await world.patch("Endpoint", "chat", logging=None)
        await is_said("", "")
