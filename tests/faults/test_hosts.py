"""Faults of a whole host, in a small cloud of fake ones."""

from __future__ import annotations

from tests.kinds.world import World


async def test_nothing_is_placed_on_a_silent_host_and_nothing_there_is_given_away() -> None:
    async with World(hosts=2) as world:
        await world.create("Instance", "first", {"flavor": "small", "image": "micro"})
        await world.until_ready("Instance", "first")
        (claim,) = await world.bodies("Claim")
        silent = claim["spec"]["host"]
        before = [row.kind for row in await world.store.ledger.entries()]
        await world.silence(silent)
        await world.until_reason("Host", silent, "HostSilent", namespace="")
        for name in ("second", "third", "fourth"):
            await world.create("Instance", name, {"flavor": "small", "image": "micro"})
            await world.until_ready("Instance", name)
        claims = {body["spec"]["workload"]["name"]: body["spec"]["host"] for body in await world.bodies("Claim")}
        assert claims.pop("first") == silent
        assert silent not in claims.values()
        rows = [row for row in await world.store.ledger.entries() if row.claim_uid == claim["metadata"]["uid"]]
        assert [row.kind for row in rows] == before, "who cannot be heard is billed as before"
        await world.hear(silent)
        await world.until_ready("Instance", "first")
        assert world.hosts[silent].qemu.starts == 1, "it never stopped"
