"""Members and credentials: what is shown once is shown once, what is refused says why, and what changes is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from playwright.async_api import expect

from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from bessemer.portal import people
from tests.portal.conftest import PHONE
from tests.portal.test_looks import violations
from tests.portal.town import LAB, Town

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

Visit = Callable[..., Any]
CREDENTIALS, MEMBERS = f"/in/{LAB}/credentials", f"/in/{LAB}/members"


async def bodies(t: Town, kind: str) -> list[dict[str, Any]]:
    return [orjson.loads(one.body) for one in (await t.w.store.objects.list(Scope(kind=kind))).items]


async def test_a_credential_is_made_shown_once_rotated_and_revoked(t: Town, visitor: Visit) -> None:
    async with visitor("ada") as ada:
        page = await ada.open(CREDENTIALS)
        await page.get_by_label("Name", exact=True).fill("ci")
        await page.get_by_label("Verbs").fill("get, list")
        await page.get_by_label("Kinds").fill("Instance")
        await page.get_by_role("button", name="Make it").click()
        secret = page.locator("#secret")
        await expect(secret).to_be_visible()
        first = await secret.inner_text()
        assert await violations(page) == []
        row = page.get_by_role("row", name="ci")
        await expect(row).to_contain_text("get, list; Instance; here")
        await expect(row).to_contain_text("never")
        await row.get_by_role("button", name="New secret").click()
        await expect(secret).not_to_have_text(first)
        assert (await bodies(t, "ApplicationCredential"))[0]["status"]["secrets"][1]["until"], "no gap between two"
        again = await ada.open(CREDENTIALS)
        assert await again.locator("#secret").count() == 0
        assert first not in await again.content()
        await again.get_by_label("Name", exact=True).fill("ci")
        await again.get_by_role("button", name="Make it").click()
        await expect(again.get_by_role("alert")).to_contain_text("already exists")
        assert await again.get_by_label("Name", exact=True).input_value() == "ci", "to be mended"
        await again.get_by_role("row", name="ci").get_by_role("button", name="Revoke").click()
        await again.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        await expect(again.get_by_role("row", name="ci")).to_contain_text("Revoked")
        assert (await bodies(t, "ApplicationCredential"))[0]["metadata"]["deletionTimestamp"]


async def test_somebody_is_let_in_changed_and_taken_out(t: Town, visitor: Visit) -> None:
    async with visitor("root") as root:
        page = await root.open(MEMBERS)
        other = await root.open(MEMBERS)
        await page.get_by_label("Name", exact=True).fill("rita")
        await page.get_by_label("Role", exact=True).select_option("reader")
        await page.get_by_role("button", name="Give the role").click()
        row = other.get_by_role("row", name="rita")
        await expect(row).to_be_visible()  # it came to the page that was open
        await expect(row).to_contain_text("acme / research")
        await other.get_by_label("Role of rita").select_option("member")
        await row.get_by_role("button", name="Change").click()
        await expect(other.get_by_label("Role of rita")).to_have_value("member")
        (binding,) = await bodies(t, "RoleBinding")
        assert (binding["spec"]["role"], binding["spec"]["scope"]) == ("member", {"project": LAB})
        await other.get_by_role("row", name="rita").get_by_role("button", name="Remove").click()
        await other.get_by_role("dialog").get_by_role("button", name="Remove").click()
        await expect(other.get_by_role("row", name="rita")).to_have_count(0)
        assert await bodies(t, "RoleBinding") == []


async def test_nobody_grants_more_than_they_hold_and_the_page_says_so(t: Town, visitor: Visit) -> None:
    key = Key("RoleBinding", "", "acme--inviter")
    rule = {"kinds": ["RoleBinding"], "verbs": ["get", "list", "create", "update", "patch", "delete"]}
    await t.put({"kind": "Role", "metadata": {"name": "acme--inviter"}, "spec": {"rules": [rule]}})
    spec = {"role": "acme--inviter", "subjects": [{"kind": "User", "name": "ada"}], "scope": {"tenant": "acme"}}
    await t.put({"kind": "RoleBinding", "metadata": {"name": key.name}, "spec": spec})
    async with visitor("ada", PHONE) as ada:
        page = await ada.open(MEMBERS)
        assert await page.get_by_role("button", name="Give the role").count() == 0, "a member sees, and changes nothing"
        answer = await ada.context.request.post(
            f"{t.url}{MEMBERS}",
            form={"act": "new", "kind": "User", "who": "rita", "role": "tenant-admin", "where": "tenant"},
            headers={"Origin": t.url},
        )
        assert answer.status == 403
        shown = await answer.text()
        assert "This was refused, and nothing was changed" in shown
        assert "may not grant" in shown
    assert len(await bodies(t, "RoleBinding")) == 1
    await t.w.store.objects.delete(key, CONTROLLER)


async def test_a_role_that_is_not_offered_any_more_is_written_by_name(
    t: Town, visitor: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tenant with more roles than a page offers each can be given, and changed to."""
    monkeypatch.setattr(people, "ROWS_SHOWN", 2)
    rule = {"kinds": ["Instance"], "verbs": ["get"]}
    for number in range(4):
        await t.put({"kind": "Role", "metadata": {"name": f"acme--r{number}"}, "spec": {"rules": [rule]}})
    async with visitor("root") as root:
        page = await root.open(MEMBERS)
        assert await page.locator("#roles option").count() == 6, "of the built-in ones all, and two"
        await page.get_by_label("Name", exact=True).fill("rita")
        await page.get_by_label("Role", exact=True).fill("acme--r3")
        await page.get_by_role("button", name="Give the role").click()
        row = page.get_by_role("row", name="rita")
        await expect(row.get_by_label("Role of rita")).to_have_value("acme--r3")
        assert await violations(page) == []
        await row.get_by_label("Role of rita").fill("acme--r2")
        await row.get_by_role("button", name="Change").click()
        await expect(page.get_by_role("row", name="rita").get_by_label("Role of rita")).to_have_value("acme--r2")
        (binding,) = await bodies(t, "RoleBinding")
        assert binding["spec"]["role"] == "acme--r2"
    for kind in ("RoleBinding", "Role"):
        for body in await bodies(t, kind):
            await t.w.store.objects.delete(Key(kind, "", body["metadata"]["name"]), CONTROLLER)
