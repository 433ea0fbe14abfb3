"""Booleans in the query, as Go's ParseBool reads them: everywhere alike, whoever asks."""

from __future__ import annotations

import pytest

from bessemer.api.query import flag, list_options
from bessemer.core.errors import Malformed
from tests.api.test_apply import config
from tests.api.test_credentials import made
from tests.api.world import BASE, World, instance

LAB = f"{BASE}/namespaces/acme--lab/instances"
TRUE, FALSE = ("1", "t", "T", "true", "True", "TRUE"), ("0", "f", "F", "false", "False", "FALSE")
SPELLINGS = [*((said, True) for said in TRUE), *((said, False) for said in FALSE), ("", True)]
WRONG = ("yes", "no", "2", "tRUE", "on", " true", "true ", "None", "nil")


@pytest.mark.parametrize("name", ["watch", "force", "allowWatchBookmarks", "sendInitialEvents"])
def test_each_spelling(name: str) -> None:
    for said, meant in SPELLINGS:
        assert flag({name: said}, name) is meant, said
    assert not flag({}, name)
    for said in WRONG:
        with pytest.raises(Malformed, match="ParseBool"):
            flag({name: said}, name)


def test_a_list_and_its_watch_are_told_apart_by_it() -> None:
    for said, meant in SPELLINGS:
        assert list_options({"watch": said}).watch is meant
        assert list_options({"watch": "1", "allowWatchBookmarks": said}).bookmarks is meant
    for said in WRONG:
        for query in ({"watch": said}, {"watch": "1", "allowWatchBookmarks": said}):
            with pytest.raises(Malformed):
                list_options(query)


async def test_whoever_may_list_alone_watches_by_no_spelling(w: World) -> None:
    lists = await made(w, name="lists", verbs=["list"])
    await w.create(LAB, instance("vm"))
    watches = await made(w, name="watches", verbs=["watch"])
    for said, meant in SPELLINGS:
        path = f"{LAB}?watch={said}&timeoutSeconds=60"
        may, may_not = (watches, lists) if meant else (lists, watches)
        assert (await w.call("GET", path, token=may_not)).code == 403, said
        if meant:
            async with w.watch(path, token=may) as events:
                assert ((await events.next())["type"], events.code) == ("ADDED", 200), said
        else:
            assert (await w.call("GET", path, token=may)).json["kind"] == "InstanceList", said
    for said in WRONG:
        for token in (lists, watches):
            assert (await w.call("GET", f"{LAB}?watch={said.replace(' ', '%20')}", token=token)).code == 400, said


async def test_force_of_an_apply(w: World) -> None:
    for number, (said, meant) in enumerate(SPELLINGS):
        name = f"vm{number}"
        await w.create(LAB, instance(name))
        body = config(name, running=False)
        path = f"{LAB}/{name}?fieldManager=m2&force={said}"
        assert (await w.call("PATCH", path, body, media="application/apply-patch+yaml")).code == (
            200 if meant else 409
        ), said
    for said in WRONG:
        path = f"{LAB}/vm0?fieldManager=m2&force={said.replace(' ', '%20')}"
        assert (await w.call("PATCH", path, body, media="application/apply-patch+yaml")).code == 400, said
