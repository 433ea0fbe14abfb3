"""SignInPolicy: one, and nothing that moves."""

from __future__ import annotations

from bessemer.core.resource import Metadata
from bessemer.kinds.tenancy.signinpolicy import SignInPolicy, SignInPolicySpec, validate
from tests.api.world import BASE
from tests.api.world import World as ApiWorld
from tests.kinds.five import Case, check_is_denied_to_another_tenant
from tests.kinds.tenancy import still

SPEC = {"localUsers": True}


async def test_converges() -> None:
    await still.check_converges("SignInPolicy", SPEC)


async def test_converges_when_run_twice() -> None:
    await still.check_converges_when_run_twice("SignInPolicy", SPEC)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await still.check_no_driver_is_called("SignInPolicy", SPEC, localUsers=False)


async def test_deletes_cleanly() -> None:
    await still.check_deletes_cleanly("SignInPolicy", SPEC)


async def made(w: ApiWorld) -> str:
    body = {"metadata": {"name": "sign-in"}, "spec": SPEC}
    return str((await w.create(f"{BASE}/signinpolicies", body))["metadata"]["name"])


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(Case("SignInPolicy", "sign-in", SPEC, namespace=""), make=made)


def test_there_is_one() -> None:
    def fields(name: str) -> list[str]:
        policy = SignInPolicy(metadata=Metadata(name=name), spec=SignInPolicySpec())
        return [cause.field for cause in validate(policy, None)]

    assert fields("sign-in") == []
    assert fields("another") == ["metadata.name"]
