"""Forms of members and credentials, sent without a browser: what a form may not say, and what an answer owns up to."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bessemer.client import Client
from bessemer.client.calls import Account
from bessemer.core.errors import Conflict, Forbidden, TooMany, Unavailable
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from bessemer.portal import people
from tests.portal.test_guard import Answer, caller
from tests.portal.town import LAB, Town

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDENTIALS, MEMBERS = f"/in/{LAB}/credentials", f"/in/{LAB}/members"


async def sent(t: Town, path: str, *, user: str = "root", **form: str) -> Answer:
    async with caller(t) as somebody:
        await somebody.sign_in(user)
        return await somebody.post(path, form)


async def bodies(t: Town, kind: str) -> list[dict[str, Any]]:
    return [orjson.loads(one.body) for one in (await t.w.store.objects.list(Scope(kind=kind))).items]


async def bound(t: Town, name: str, *who: str, role: str = "reader") -> Key:
    subjects = [{"kind": "User", "name": one} for one in who]
    spec = {"role": role, "subjects": subjects, "scope": {"project": LAB}}
    await t.put({"kind": "RoleBinding", "metadata": {"name": name}, "spec": spec})
    return Key("RoleBinding", "", name)


async def gone(t: Town, *kinds: str) -> None:
    """The town as it was."""
    for kind in kinds:
        for body in await bodies(t, kind):
            meta = body["metadata"]
            await t.w.store.objects.delete(Key(kind, meta.get("namespace", ""), meta["name"]), CONTROLLER)


@pytest.mark.parametrize("days", ["²", "٣", "", "0", "3651", "9" * 900, "-1"])
async def test_days_that_are_no_number_of_days_are_refused(t: Town, days: str) -> None:
    answer = await sent(t, CREDENTIALS, user="ada", act="new", name="ci", days=days)
    assert answer.status == 400
    assert "it is good for 1 to 3650 days" in answer.text
    assert await bodies(t, "ApplicationCredential") == []


async def test_a_form_of_too_many_fields_is_refused(t: Town) -> None:
    answer = await sent(t, MEMBERS, **{f"field{number}": "x" for number in range(25)})
    assert answer.status == 400
    assert "A form has at most 24 fields" in answer.text


async def test_a_change_that_is_refused_at_its_second_write_leaves_the_first_undone(
    t: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bound(t, "acme--two", "ada", "rita")

    async def changed(*_: Any, **__: Any) -> Any:
        raise Conflict("somebody changed it since")

    monkeypatch.setattr(Client, "patch", changed)
    change = {"act": "change", "name": f"binding/{key.name}/User/rita", "role": "member"}
    for _ in range(2):
        answer = await sent(t, MEMBERS, **change)
        assert answer.status == 409
        assert "This was refused, and nothing was changed" in answer.text
        (body,) = await bodies(t, "RoleBinding")
        assert [one["name"] for one in body["spec"]["subjects"]] == ["ada", "rita"]

    async def lost(*_: Any, **__: Any) -> Any:
        raise Unavailable("the api is away")

    for number, (patch, delete) in enumerate(((changed, lost), (lost, Client.delete))):
        monkeypatch.setattr(Client, "patch", patch)
        monkeypatch.setattr(Client, "delete", delete)
        answer = await sent(t, MEMBERS, **change)
        assert answer.status == 409
        assert "nothing was changed" not in answer.text
        assert "rita holds the new role, by binding acme--" in answer.text
        assert len(await bodies(t, "RoleBinding")) == 2 + number
    monkeypatch.undo()
    await gone(t, "RoleBinding")


async def test_a_credential_that_gets_no_secret_is_told_of(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any, **__: Any) -> str:
        raise TooMany("too many secrets at once", retry_after_seconds=9)

    monkeypatch.setattr(Account, "credential_token", refused)
    answer = await sent(t, CREDENTIALS, user="ada", act="new", name="early", days="9")
    assert answer.status == 409
    assert "nothing was changed" not in answer.text
    assert "early was made, and has no secret yet: too many secrets at once. Press New secret" in answer.text
    assert 'value="early"' in answer.text, "the row with its button"
    assert [body["metadata"]["name"] for body in await bodies(t, "ApplicationCredential")] == ["early"]
    answer = await sent(t, CREDENTIALS, user="ada", act="rotate", name="early")
    assert answer.status == 429
    assert "This was refused, and nothing was changed" in answer.text
    monkeypatch.undo()
    answer = await sent(t, CREDENTIALS, user="ada", act="rotate", name="early")
    assert 'id="secret"' in answer.text
    await gone(t, "ApplicationCredential")


@pytest.mark.parametrize("who", ["binding/acme--two/User/rita", "tenant/acme/User/ada"])
async def test_a_change_to_no_role_takes_nobody_out(t: Town, who: str) -> None:
    await bound(t, "acme--two", "ada", "rita")
    before = await bodies(t, "RoleBinding"), await bodies(t, "Tenant")
    answer = await sent(t, MEMBERS, act="change", name=who, role="")
    assert answer.status == 400
    assert "choose a role" in answer.text
    assert (await bodies(t, "RoleBinding"), await bodies(t, "Tenant")) == before
    await gone(t, "RoleBinding")


async def shown(t: Town, path: str, *, user: str = "root") -> str:
    async with caller(t, user) as somebody:
        answer = await somebody.get(path)
    assert answer.status == 200
    return answer.text


async def test_a_member_is_shown_whatever_stands_before(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' bindings and tenants come first in the lists, and fill more than a page of them."""
    monkeypatch.setattr(people, "ROWS_SHOWN", 2)
    for number in range(5):
        spec = {"role": "reader", "subjects": [{"kind": "User", "name": "ada"}], "scope": {"tenant": "foundry"}}
        await t.put({"kind": "RoleBinding", "metadata": {"name": f"aaa--{number}"}, "spec": spec})
    await bound(t, "zzz--last", "rita")
    text = await shown(t, MEMBERS.replace(LAB, "rival--apps"))
    assert "tenant rival" in text, "neither is its Tenant among the first"
    text = await shown(t, MEMBERS)
    assert "row-zzz--last-User-rita" in text
    assert "row-aaa--0" not in text
    assert "are shown" not in text
    everything = await shown(t, MEMBERS.replace(LAB, "all"))
    assert "Only the first 2 of the roles that a binding gives are shown" in everything
    await gone(t, "RoleBinding")


async def test_who_may_not_look_is_told_so(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    async def closed(*_: Any, **__: Any) -> Any:
        raise Forbidden("not for you")

    async with caller(t, "ada") as ada:
        assert (await ada.get(f"/in/{LAB}/instances")).status == 200  # what the shell follows is there
        monkeypatch.setattr(Client, "list", closed)
        monkeypatch.setattr(Client, "get", closed)
        page, credentials = await ada.get(MEMBERS), await ada.get(CREDENTIALS)
    assert "You may not see the roles that a binding gives." in page.text
    assert "You may not see the members that a tenant names." in page.text
    assert "Nobody holds a role here" not in page.text
    assert "You may not see the credentials here." in credentials.text
    assert "No credential yet" not in credentials.text
