"""Forms of members and credentials, sent without a browser: what a form may not say, and what an answer owns up to."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
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
