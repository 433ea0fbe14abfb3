"""One that has the name of another which is gone is not told what became of that."""

from __future__ import annotations

from bessemer.core.resource import Key
from tests.api.world import World
from tests.cli.conftest import PROJECT, Cli

PLACE = ("-n", PROJECT)


def happen(cli: Cli, name: str, *, message: str, uid: str = "") -> None:
    """An event of an instance, or of one that had its name and this ``uid``."""

    async def work(w: World) -> None:
        key = Key("Instance", PROJECT, name)
        found = uid or (await w.store.objects.get(key)).uid
        await w.store.events.emit(key, found, "Unschedulable", message, warning=True)

    cli.do(work)


def test_what_became_of_one_of_its_name_before_is_not_told(cli: Cli) -> None:
    manifest = "kind: Instance\nmetadata: {name: vm}\nspec: {flavor: small, image: micro}\n"
    assert cli("apply", "-f", "-", *PLACE, stdin=manifest).code == 0
    happen(cli, "vm", message="it was another's", uid="gone")
    happen(cli, "vm", message="it is its own")
    for verb in ("why", "describe"):
        said = cli(verb, "instance", "vm", *PLACE).out
        assert ("it was another's" in said, "it is its own" in said) == (False, True)
    assert "it was another's" in cli("events", "instance", "vm", *PLACE).out
