"""Who is offered a change: those whose scope may hold it, found by kind and namespace and not one by one."""

from __future__ import annotations

import pytest

from bessemer.core.ports import Scope
from bessemer.core.resource import Change, Key
from bessemer.store.feed import Entry, Feed, Watcher
from bessemer.store.metrics import Metrics


def change(namespace: str, name: str, revision: int) -> Entry:
    return Entry(Change(revision, "ADDED", Key("Volume", namespace, name), f"uid-{name}", "", b"{}"), "{}")


def test_another_projects_watchers_cost_a_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    feed, offered = Feed(0, Metrics()), list[Watcher]()
    scopes = [Scope(kind="Volume", namespace="calm--one") for _ in range(50)]
    scopes += [Scope(kind="Volume", namespace="storm--one"), Scope(kind="Volume"), Scope(kind="Volume", name="b")]
    scopes += [Scope(kind="Instance", namespace="storm--one")]
    watchers = [feed.join(scope) for scope in scopes]
    offer = Watcher.offer

    def counted(watcher: Watcher, entry: Entry) -> bool:
        offered.append(watcher)
        return offer(watcher, entry)

    monkeypatch.setattr(Watcher, "offer", counted)
    feed.publish([change("storm--one", "a", 1), change("storm--one", "b", 2)], 2)
    ours, everybody, named = watchers[50:53]
    assert sorted(map(id, offered)) == sorted(map(id, [ours, ours, everybody, everybody, named]))
    assert [len(watcher.queue) for watcher in (ours, everybody, named)] == [2, 2, 1]
    for watcher in watchers:
        feed.leave(watcher)
    assert not list(feed.everybody())
