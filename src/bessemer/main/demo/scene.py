"""The objects of the demo: two tenants, their people, what they run. Data alone."""

from __future__ import annotations

from typing import Any

from bessemer.client import an_object
from bessemer.core.resource import Key
from bessemer.kinds.fleet.host import FAKE_TAINT

PROJECT, RIVAL, SHOW = "acme--research", "rival--lab", "acme--show"
INSTANCE, ENDPOINT, FLEET_ENDPOINT = "vm", "smol", "big-show"
MODEL, IMAGE = "smollm2-135m", "micro-guest"
PEOPLE = {"ada": "acme administrator", "alan": "acme member", "rosa": "rival administrator", "rune": "rival member"}
EVERYBODY = {"root": "platform administrator", **PEOPLE}
NEXT = (
    f'chat {ENDPOINT} "What is a furnace?" -n {PROJECT}',
    f"why instance {INSTANCE} -n {PROJECT}",
    f"invoice -n {PROJECT}",
)
"""Commands to go on with, of what the demo left."""


def people() -> list[dict[str, Any]]:
    """Users, the platform's administrator first."""
    root = an_object(Key("User", "", "root"), {"displayName": "Platform administrator", "admin": True})
    return [root, *(an_object(Key("User", "", name), {"displayName": text}) for name, text in PEOPLE.items())]


def tenants() -> list[dict[str, Any]]:
    """Two tenants with quotas, a project each, and one to show the fleet with."""
    acme = [{"user": "ada", "role": "tenant-admin"}, {"user": "alan", "role": "member"}]
    rival = [{"user": "rosa", "role": "tenant-admin"}, {"user": "rune", "role": "member"}]
    own = {"milliCores": 8_000, "memoryBytes": 16 << 30, "instances": 10, "endpoints": 10}
    # What the fake fleet shows must fit, too: eight replicas of eight GPUs.
    wide = {**own, "milliCores": 1_000_000, "memoryBytes": 8 << 40, "devices": {"*": 128}}
    shown = {"displayName": "Acme", "members": acme, "quota": wide, "tolerations": [{"key": FAKE_TAINT}]}
    return [
        an_object(Key("Tenant", "", "acme"), shown),
        an_object(Key("Tenant", "", "rival"), {"displayName": "Rival", "members": rival, "quota": own}),
        an_object(Key("Project", "", PROJECT), {"displayName": "Research", "quota": own}),
        an_object(Key("Project", "", RIVAL), {"displayName": "Lab", "quota": own}),
        an_object(Key("Project", "", SHOW), {"displayName": "Show (fake hosts)"}),
    ]


def instance() -> dict[str, Any]:
    """A guest with two processors; it tolerates nothing, so it runs on this machine."""
    return an_object(Key("Instance", PROJECT, INSTANCE), {"flavor": "micro", "image": IMAGE})


def endpoint() -> dict[str, Any]:
    """A small model, served here."""
    return an_object(Key("Endpoint", PROJECT, ENDPOINT), {"model": MODEL, "flavor": "serve-small"})


def fleet_endpoint(replicas: int) -> dict[str, Any]:
    """Some replicas of eight GPUs each: only fake hosts have those, and it says that it bears them."""
    spec = {"model": MODEL, "flavor": "h100-8", "replicas": replicas, "tolerations": [{"key": FAKE_TAINT}]}
    return an_object(Key("Endpoint", SHOW, FLEET_ENDPOINT), spec)
