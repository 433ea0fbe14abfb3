"""The demo's objects, by themselves: the api takes each of them as it is, from whoever makes it in the demo."""

from __future__ import annotations

from pathlib import Path

import orjson

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import API_VERSION, Key
from bessemer.kinds import KINDS
from bessemer.main.addresses import examples
from bessemer.main.demo import scene
from bessemer.main.settings import Paths
from tests.api.world import World, world


async def make_room(w: World) -> None:
    """The world has a tenant of the demo's name: here its project and it are gone."""
    for key in (Key("Project", "", "acme--lab"), Key("Tenant", "", "acme")):
        body = orjson.loads((await w.store.objects.delete(key, CONTROLLER)).body)
        body["metadata"]["finalizers"] = []
        await w.store.objects.replace(body, CONTROLLER)


def test_what_to_type_next_is_of_what_it_made(tmp_path: Path) -> None:
    lines = examples(Paths(tmp_path / "a state"), scene.NEXT).splitlines()
    assert lines[1] == "In a second terminal:"
    assert lines[3] == f"  export BESSEMER_STATE='{tmp_path}/a state'"
    assert [line.split()[1] for line in lines[4:]] == ["chat", "why", "invoice"]
    assert all(line.endswith(f"-n {scene.PROJECT}") for line in lines[4:])


async def test_the_api_takes_what_the_demo_makes() -> None:
    plurals = {kind.name: kind.plural for kind in KINDS}
    async with world() as w:
        await make_room(w)
        workloads = [scene.instance(), scene.endpoint(), scene.fleet_endpoint(8)]
        for body in [*scene.people(), *scene.tenants(), *workloads]:
            project = body["metadata"].get("namespace")
            place = f"namespaces/{project}/" if project else ""
            reply = await w.call("POST", f"/apis/{body['apiVersion']}/{place}{plurals[body['kind']]}", body)
            assert reply.code == 201, reply.body
        # What tolerates the fake fleet is for the tenant that may, and for no other.
        theirs = scene.fleet_endpoint(8)
        theirs["metadata"]["namespace"] = scene.RIVAL
        reply = await w.call("POST", f"/apis/{API_VERSION}/namespaces/{scene.RIVAL}/endpoints", theirs)
        assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, "spec.tolerations[0].key")
