"""Objects: what a write makes of a body, who may write it, what a deletion takes along, what a list shows."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.errors import (
    AlreadyExists,
    BessemerError,
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    TooLarge,
    Unavailable,
)
from bessemer.core.ports import CONTROLLER, Scope, Stored, Writer
from bessemer.core.resource import Key
from bessemer.store import Store
from tests.store.make import ALICE, PROJECT, SYSTEM, agent, body, claim, inventory, read


async def make(store: Store, kind: str, name: str, **more: Any) -> Stored:
    return await store.objects.create(body(kind, name, **more), ALICE)


# --- create -----------------------------------------------------------------------------------------------------


async def test_the_body_is_what_is_served(store: Store) -> None:
    said = body("Guarded", "a", labels={"app": "x"}, annotations={"note": "n"}) | {"status": {"phase": "Ready"}}
    stored = await store.objects.create(said, ALICE)
    assert read(stored) == {
        "apiVersion": "bessemer.dev/v1alpha1",
        "kind": "Guarded",
        "metadata": {
            "name": "a",
            "namespace": PROJECT,
            "uid": stored.uid,
            "resourceVersion": str(stored.revision),
            "generation": 1,
            "creationTimestamp": "2025-06-15T15:06:40Z",
            "labels": {"app": "x"},
            "annotations": {"note": "n"},
            "finalizers": ["bessemer.dev/guarded"],
        },
        "spec": {"size": 1},
    }
    assert await store.objects.get(stored.key) == stored


async def test_identity_is_the_stores(store: Store) -> None:
    stored = await make(store, "Thing", "a", uid="mine", resourceVersion="99", generation=7)
    assert stored.uid != "mine"
    assert (stored.revision, stored.generation) == (1, 1)


async def test_a_name_is_given_once(store: Store) -> None:
    await make(store, "Thing", "a")
    with pytest.raises(AlreadyExists, match=f"Thing {PROJECT}/a exists already"):
        await make(store, "Thing", "a")
    await make(store, "Thing", "a", namespace="acme--other")


async def test_generate_name(store: Store) -> None:
    said = body("Thing", "")
    said["metadata"]["generateName"] = "job-"
    stored = await store.objects.create(said, ALICE)
    assert stored.key.name.startswith("job-")
    assert len(stored.key.name) == 9


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (body("Nothing", "a"), Invalid),
        (body("Thing", "a", namespace=""), Invalid),
        (body("Host", "a", namespace=PROJECT), Invalid),
        (body("Thing", "../etc"), Invalid),
        (body("Thing", "A"), Invalid),
        (body("Thing", "a" * 254), Invalid),
        (body("Thing", "a\n"), Invalid),
        (body("Thing", "a", labels={"x": 1}), Invalid),
        (body("Thing", "a", labels=[]), Invalid),
        (body("Thing", "a", spec=[1]), Invalid),
        (body("Thing", "a", spec={"number": 1 << 70}), Malformed),
        (body("Thing", "a", spec={"text": "\ud800"}), Malformed),
        (body("Thing", "a", spec={"text": "x" * (3 << 20)}), TooLarge),
    ],
)
async def test_hostile_words_are_refused(store: Store, said: dict[str, Any], error: type[BessemerError]) -> None:
    with pytest.raises(error):
        await store.objects.create(said, ALICE)
    assert store.revision == 0


async def test_a_body_nested_10000_deep_is_malformed(store: Store) -> None:
    deep: Any = {}
    for _ in range(10_000):
        deep = {"a": deep}
    with pytest.raises(Malformed):
        await store.objects.create(body("Thing", "a", spec=deep), ALICE)


async def test_dry_runs_leave_nothing(store: Store) -> None:
    shown = await store.objects.create(body("Thing", "a"), ALICE, dry_run=True)
    assert shown.revision == 1
    with pytest.raises(NotFound):
        await store.objects.get(shown.key)
    kept = await make(store, "Thing", "a")
    assert kept.revision == 1
    changed = await store.objects.replace(body("Thing", "a", spec={"size": 2}), ALICE, dry_run=True)
    assert read(changed)["spec"] == {"size": 2}
    await store.objects.delete(kept.key, ALICE, dry_run=True)
    assert await store.objects.get(kept.key) == kept
    assert [row.verb for row in await store.audit.rows()] == ["create"]


# --- replace ----------------------------------------------------------------------------------------------------


async def test_generation_moves_with_the_spec_alone(store: Store) -> None:
    await make(store, "Thing", "a")
    labelled = await store.objects.replace(body("Thing", "a", labels={"x": "y"}), ALICE)
    assert (labelled.generation, labelled.revision) == (1, 2)
    grown = await store.objects.replace(body("Thing", "a", spec={"size": 2}), ALICE)
    assert (grown.generation, grown.revision) == (2, 3)
    assert "labels" not in read(grown)["metadata"]


async def test_a_write_that_changes_nothing_keeps_the_revision(store: Store) -> None:
    first = await make(store, "Thing", "a", labels={"x": "y"})
    assert await store.objects.replace(read(first), ALICE) == first
    ready = {**read(first), "status": {"phase": "Ready"}}
    second = await store.objects.replace(ready, CONTROLLER, part="status")
    assert await store.objects.replace({**ready, "metadata": read(second)["metadata"]}, SYSTEM, part="status") == second
    assert store.revision == 2


async def test_parts_do_not_touch_each_other(store: Store) -> None:
    await make(store, "Thing", "a")
    said = body("Thing", "a", spec={"size": 9}, labels={"x": "y"}) | {"status": {"phase": "Ready"}}
    status = read(await store.objects.replace(said, CONTROLLER, part="status"))
    assert (status["spec"], status["status"], "labels" in status["metadata"]) == (
        {"size": 1},
        {"phase": "Ready"},
        False,
    )
    main = read(await store.objects.replace({**said, "status": {"phase": "Failed"}}, ALICE))
    assert (main["spec"], main["status"]) == ({"size": 9}, {"phase": "Ready"})


async def test_preconditions(store: Store) -> None:
    first = await make(store, "Thing", "a")
    stale = {**read(first), "spec": {"size": 3}}
    await store.objects.replace(body("Thing", "a", spec={"size": 2}), ALICE)
    with pytest.raises(Conflict, match="has been modified"):
        await store.objects.replace(stale, ALICE)
    with pytest.raises(Conflict, match="another object"):
        await store.objects.replace(body("Thing", "a", uid="other"), ALICE)
    with pytest.raises(Conflict, match="another object"):
        await store.objects.delete(first.key, ALICE, uid="other")
    with pytest.raises(Conflict, match="has been modified"):
        await store.objects.delete(first.key, ALICE, uid=first.uid, revision=str(first.revision))
    with pytest.raises(NotFound):
        await store.objects.replace(body("Thing", "b"), ALICE)
    with pytest.raises(NotFound):
        await store.objects.delete(Key("Thing", PROJECT, "b"), ALICE)


# --- who may write ----------------------------------------------------------------------------------------------


async def test_host_status_has_two_writers_with_their_own_fields(store: Store) -> None:
    await make(store, "Host", "h1", namespace="")
    said = body("Host", "h1", namespace="")
    report = {**said, "status": {"report": {"kernel": "6.1"}, "phase": "Hacked"}}
    for writer in (agent("h2"), ALICE, CONTROLLER, SYSTEM, Writer("gateway", "h1")):
        with pytest.raises(Forbidden, match="only the agent of host h1"):
            await store.objects.replace(report, writer, part="report")
    await store.objects.replace(report, agent("h1"), part="report")
    with pytest.raises(Forbidden):
        await store.objects.replace(report, agent("h1"), part="status")
    ready = {**said, "status": {"phase": "Ready", "report": {"kernel": "forged"}}}
    stored = await store.objects.replace(ready, CONTROLLER, part="status")
    assert read(stored)["status"] == {"phase": "Ready", "report": {"kernel": "6.1"}}


async def test_a_claims_status_is_its_agents(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    said = {**read(taken), "status": {"phase": "Running"}}
    for writer in (agent("h2"), ALICE, CONTROLLER, SYSTEM):
        with pytest.raises(Forbidden, match="only the agent of host h1"):
            await store.objects.replace(said, writer, part="status")
    await store.objects.replace(said, agent("h1"), part="status")
    for writer in (ALICE, CONTROLLER, SYSTEM, agent("h1")):
        with pytest.raises(Forbidden):
            await store.objects.replace(said, writer)
        with pytest.raises(Forbidden):
            await store.objects.create({**said, "metadata": {"name": "b", "namespace": PROJECT}}, writer)
        with pytest.raises(Forbidden):
            await store.objects.delete(taken.key, writer)


@pytest.mark.parametrize("writer", [agent("h1"), Writer("gateway", "gateway")])
async def test_agents_and_gateways_write_no_intent(store: Store, writer: Writer) -> None:
    stored = await make(store, "Thing", "a")
    with pytest.raises(Forbidden):
        await store.objects.create(body("Thing", "b"), writer)
    with pytest.raises(Forbidden):
        await store.objects.replace(body("Thing", "a", spec={}), writer)
    with pytest.raises(Forbidden):
        await store.objects.replace(body("Thing", "a"), writer, part="status")
    with pytest.raises(Forbidden):
        await store.objects.delete(stored.key, writer)


async def test_users_write_no_status(store: Store) -> None:
    await make(store, "Thing", "a")
    with pytest.raises(Forbidden, match="control side alone"):
        await store.objects.replace(body("Thing", "a") | {"status": {"phase": "Ready"}}, ALICE, part="status")
    with pytest.raises(Forbidden, match="has no report"):
        await store.objects.replace(body("Thing", "a"), agent("a"), part="report")


# --- deletion ---------------------------------------------------------------------------------------------------


async def test_what_has_no_finalizer_goes_at_once(store: Store) -> None:
    stored = await make(store, "Thing", "a")
    gone = await store.objects.delete(stored.key, ALICE)
    assert (gone.uid, read(gone)["metadata"]["resourceVersion"]) == (stored.uid, "2")
    with pytest.raises(NotFound):
        await store.objects.get(stored.key)


async def test_finalizers_hold_and_let_go(store: Store) -> None:
    stored = await make(store, "Guarded", "a")
    marked = await store.objects.delete(stored.key, ALICE)
    assert (marked.generation, read(marked)["metadata"]["deletionTimestamp"]) == (2, "2025-06-15T15:06:40Z")
    assert await store.objects.delete(stored.key, ALICE) == marked
    with pytest.raises(Invalid, match="being deleted"):
        await store.objects.replace(body("Guarded", "a", finalizers=["bessemer.dev/guarded", "other/one"]), CONTROLLER)
    await store.objects.replace(body("Guarded", "a", finalizers=[]), CONTROLLER)
    with pytest.raises(NotFound):
        await store.objects.get(stored.key)


async def test_a_user_cannot_pull_the_kinds_own_finalizer(store: Store) -> None:
    stored = await make(store, "Guarded", "a")
    kept = await store.objects.replace(body("Guarded", "a", finalizers=["me/mine"]), ALICE)
    assert read(kept)["metadata"]["finalizers"] == ["me/mine", "bessemer.dev/guarded"]
    await store.objects.delete(stored.key, ALICE)
    await store.objects.replace(body("Guarded", "a"), ALICE)
    assert read(await store.objects.get(stored.key))["metadata"]["finalizers"] == ["bessemer.dev/guarded"]


async def standing(store: Store, kind: str) -> list[str]:
    return [item.key.name for item in (await store.objects.list(Scope(kind=kind))).items]


def owned(*owners: Stored) -> list[dict[str, Any]]:
    return [
        {"apiVersion": "bessemer.dev/v1alpha1", "kind": o.key.kind, "name": o.key.name, "uid": o.uid} for o in owners
    ]


async def test_what_is_owned_follows(store: Store) -> None:
    root = await make(store, "Thing", "root")
    child = await make(store, "Thing", "child", ownerReferences=owned(root))
    await make(store, "Thing", "grandchild", ownerReferences=owned(child))
    held = await make(store, "Guarded", "held", ownerReferences=owned(root))
    await make(store, "Thing", "free")
    await store.objects.delete(root.key, ALICE)
    assert [item.key.name for item in (await store.objects.list(Scope(kind="Thing"))).items] == ["free"]
    assert read(await store.objects.get(held.key))["metadata"]["deletionTimestamp"]


async def test_a_dependent_stays_while_another_owner_lives(store: Store) -> None:
    one, two = await make(store, "Thing", "one"), await make(store, "Thing", "two")
    both = await make(store, "Thing", "both", ownerReferences=owned(one, two))
    await store.objects.delete(one.key, ALICE)
    assert await store.objects.get(both.key) == both
    await store.objects.delete(two.key, ALICE)
    with pytest.raises(NotFound):
        await store.objects.get(both.key)


async def test_owned_claims_are_retired_never_dropped(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    owner = await make(store, "Thing", "owner")
    (taken,) = await store.capacity.take([claim("a", devices=("gpu-0",), ownerReferences=owned(owner))], CONTROLLER)
    await store.objects.delete(owner.key, ALICE)
    document = read(await store.objects.get(taken.key))
    assert document["metadata"]["deletionTimestamp"]
    assert next(iter(await store.capacity.devices())).claim == taken.uid


async def test_nothing_is_made_for_an_owner_that_is_gone(store: Store) -> None:
    owner = await make(store, "Thing", "owner")
    await store.objects.delete(owner.key, ALICE)
    with pytest.raises(Conflict, match="owner"):
        await make(store, "Thing", "late", ownerReferences=owned(owner))
    await make(store, "Thing", "adopted")
    with pytest.raises(Conflict, match="owner"):
        await store.objects.replace(body("Thing", "adopted", ownerReferences=owned(owner)), ALICE)


async def test_an_owner_stands_once_and_is_another(store: Store) -> None:
    """Whoever writes: what a deletion gives back is then given back once."""
    owner = await make(store, "Thing", "owner")
    with pytest.raises(Invalid):
        await make(store, "Thing", "twice", ownerReferences=owned(owner, owner))
    await make(store, "Thing", "child", ownerReferences=owned(owner))
    for wrong in (
        owned(owner, owner),
        owned(owner, await store.objects.get(Key("Thing", owner.key.namespace, "child"))),
    ):
        with pytest.raises(Invalid):
            await store.objects.replace(body("Thing", "child", ownerReferences=wrong), ALICE)
    with pytest.raises(Invalid):
        await store.objects.replace(body("Thing", "owner", ownerReferences=owned(owner)), CONTROLLER)


async def test_a_new_owner_takes_its_new_dependents_along(store: Store) -> None:
    first, second = await make(store, "Thing", "first"), await make(store, "Thing", "second")
    child = await make(store, "Thing", "child", ownerReferences=owned(first))
    await store.objects.replace(body("Thing", "child", ownerReferences=owned(second)), ALICE)
    await store.objects.delete(first.key, ALICE)
    assert (await store.objects.get(child.key)).uid == child.uid
    await store.objects.delete(second.key, ALICE)
    with pytest.raises(NotFound):
        await store.objects.get(child.key)


async def test_a_project_goes_empty_or_not_at_all(store: Store) -> None:
    project = await make(store, "Project", PROJECT, namespace="")
    thing = await make(store, "Thing", "a")
    await store.events.emit(thing.key, thing.uid, "Made", "It is there")
    await store.objects.delete(project.key, ALICE)
    with pytest.raises(Forbidden, match="being deleted"):
        await make(store, "Thing", "late")
    with pytest.raises(Conflict, match="still holds a Thing"):
        await store.objects.replace(body("Project", PROJECT, namespace=""), CONTROLLER)
    await store.objects.delete(thing.key, ALICE)
    await store.objects.replace(body("Project", PROJECT, namespace=""), CONTROLLER)
    with pytest.raises(NotFound):
        await store.objects.get(project.key)


# --- lists ------------------------------------------------------------------------------------------------------


async def names(store: Store, **scope: Any) -> list[str]:
    page = await store.objects.list(Scope(kind="Thing", **scope))
    return [f"{item.key.namespace}/{item.key.name}" for item in page.items]


async def test_scopes(store: Store) -> None:
    for namespace in ("p--b", "p--a", "p--c"):
        for name in ("y", "x"):
            await make(store, "Thing", name, namespace=namespace, labels={"name": name, "all": "1"})
    assert await names(store) == ["p--a/x", "p--a/y", "p--b/x", "p--b/y", "p--c/x", "p--c/y"]
    assert await names(store, namespace="p--b") == ["p--b/x", "p--b/y"]
    assert await names(store, name="x") == ["p--a/x", "p--b/x", "p--c/x"]
    assert await names(store, namespaces=frozenset({"p--c", "p--a"}), name="y") == ["p--a/y", "p--c/y"]
    assert await names(store, namespaces=frozenset({"p--c"}), namespace="p--a") == []
    assert await names(store, names=frozenset({"y", "none"}), namespace="p--a") == ["p--a/y"]
    assert await names(store, labels={"name": "y", "all": "1"}) == ["p--a/y", "p--b/y", "p--c/y"]
    assert await names(store, labels={"name": "y", "all": "2"}) == []
    assert await names(store, namespaces=frozenset()) == []


async def test_a_paged_list_walks_sets_and_labels(store: Store) -> None:
    for namespace in ("p--b", "p--a", "p--c"):
        for name in ("x", "y", "z"):
            await make(store, "Thing", name, namespace=namespace, labels={"all": "1", "name": name})
    for scope in (
        Scope(kind="Thing", namespaces=frozenset({"p--a", "p--c"})),
        Scope(kind="Thing", namespace="p--b", labels={"all": "1"}),
        Scope(kind="Thing", labels={"all": "1", "name": "y"}),
        Scope(kind="Thing", names=frozenset({"x", "z"})),
        Scope(kind="Thing", places={"p--a": None, "p--c": frozenset({"y", "z"}), "p--d": None}),
        Scope(kind="Thing", places={"p--a": None, "p--b": frozenset({"x"})}, labels={"all": "1"}),
    ):
        whole = [item.key for item in (await store.objects.list(scope)).items]
        found: list[Key] = []
        after = "start"
        while after:
            page = await store.objects.list(scope, limit=1, after="" if after == "start" else after)
            found += [item.key for item in page.items]
            after = page.next
        assert found == whole
        assert len(found) > 2


async def test_a_list_of_places_shows_in_each_what_it_names(store: Store) -> None:
    for namespace in ("p--a", "p--b", "p--c"):
        for name in ("x", "y"):
            await make(store, "Thing", name, namespace=namespace)
    places = {"p--a": None, "p--c": frozenset({"y", "none"})}
    for scope, expected in (
        (Scope(kind="Thing", places=places), ["p--a/x", "p--a/y", "p--c/y"]),
        (Scope(kind="Thing", places=places, name="x"), ["p--a/x"]),
        (Scope(kind="Thing", places=places, namespace="p--c"), ["p--c/y"]),
        (Scope(kind="Thing", places=places, namespace="p--b"), []),
        (Scope(kind="Thing", places=places, names=frozenset({"x"})), ["p--a/x"]),
        (Scope(kind="Thing", places=places, namespaces=frozenset({"p--b", "p--c"})), ["p--c/y"]),
        (Scope(kind="Thing", places={}), []),
    ):
        page = await store.objects.list(scope)
        assert [f"{item.key.namespace}/{item.key.name}" for item in page.items] == expected
    page = await store.objects.list(Scope(kind="Thing", places=places), limit=1)
    assert page.remaining == 2, "what is not seen is not counted"


async def test_what_belongs_to_no_project_is_found_by_name(store: Store) -> None:
    for name in ("h1", "h2", "h3"):
        await make(store, "Host", name, namespace="")
    page = await store.objects.list(Scope(kind="Host", names=frozenset({"h3", "h1", "h9"})))
    assert [item.key.name for item in page.items] == ["h1", "h3"]
    assert [item.key.name for item in (await store.objects.list(Scope(kind="Host", name="h2"))).items] == ["h2"]
    assert not (await store.objects.list(Scope(kind="Host", namespace="p--a"))).items


async def test_labels_follow_their_object(store: Store) -> None:
    await make(store, "Thing", "a", labels={"x": "1", "y": "1"})
    await store.objects.replace(body("Thing", "a", labels={"x": "2", "z": "1"}), ALICE)
    assert await names(store, labels={"x": "1"}) == await names(store, labels={"y": "1"}) == []
    assert await names(store, labels={"x": "2"}) == await names(store, labels={"z": "1"}) == [f"{PROJECT}/a"]
    await store.objects.delete(Key("Thing", PROJECT, "a"), ALICE)
    assert await names(store, labels={"x": "2"}) == []
    await make(store, "Thing", "a", labels={"x": "2"})
    assert await names(store, labels={"x": "2"}) == [f"{PROJECT}/a"]


async def test_claims_by_host(store: Store) -> None:
    for host in ("h1", "h2"):
        await store.capacity.declare(host, inventory())
    await store.capacity.take([claim("a", host="h1"), claim("b", host="h2"), claim("c", host="h1")], CONTROLLER)
    page = await store.objects.list(Scope(kind="Claim", host="h1"))
    assert [item.key.name for item in page.items] == ["instance-a-0", "instance-c-0"]
    assert not (await store.objects.list(Scope(kind="Claim", host="h3"))).items


async def test_what_cannot_be_read_is_unavailable_and_readable_afterwards(file_store: Store) -> None:
    """Whether it shows at the statement or at its rows; nothing of the database's own words is for users."""
    key = (await make(file_store, "Thing", "a")).key
    whole = Scope(kind="Thing")
    await file_store.objects.list(whole)
    assert file_store._reader._recent is not None
    file_store._reader._recent._kept.clear()  # it was just written, and would be had without the database
    sessions = [file_store._reader.pool.session, *file_store._reader.pool.idle]

    def break_after(steps: int) -> None:
        left = [steps]

        def count() -> bool:
            left[0] -= 1
            return left[0] < 0

        for session in sessions:
            session._connection.set_progress_handler(count, 1)

    async def read() -> None:
        await file_store.objects.get(key)
        await file_store.leases.held("host/")
        await file_store.objects.list(whole)

    for steps in (0, 3, 10, 20):
        break_after(steps)
        with pytest.raises(Unavailable, match="cannot be read now") as caught:
            await read()
        assert "interrupted" in caught.value.internal
    for session in sessions:
        session._connection.set_progress_handler(None, 1)
    assert (await file_store.objects.get(key)).key == key
    assert len((await file_store.objects.list(whole)).items) == 1


@pytest.mark.parametrize("after", ["x", "AAAA", "é", "YS9iL2MvZA=="])
async def test_a_forged_token_is_malformed(store: Store, after: str) -> None:
    with pytest.raises(Malformed):
        await store.objects.list(Scope(kind="Thing"), after=after)
