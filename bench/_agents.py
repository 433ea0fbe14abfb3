"""The agents of some fake hosts, as `size` wants them: ``_agents.py STATE FIRST COUNT``. The same agents as those of
``up --fake-hosts``, each with a certificate and HTTPS connections of its own, in as many processes as are started."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from bessemer.agent.fake import FakeHosts, FakeSettings, run_fake_hosts
from bessemer.agent.identity import Identity
from bessemer.agent.metrics import AgentMetrics
from bessemer.client import Client, an_object, connect
from bessemer.core.clock import SystemClock
from bessemer.core.descriptors import raise_limit
from bessemer.core.errors import AlreadyExists
from bessemer.core.resource import Key
from bessemer.kinds import HOST_SIDES
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.main import identities
from bessemer.main.settings import Paths, fake_host_name, load


async def agents(paths: Paths, first: int, count: int) -> None:
    """Join and run, for ever."""
    raise_limit()  # some hundred agents have more than a thousand sockets
    settings = load(paths)
    url = identities.urls(settings)["api"]
    admin = connect(url, ca=paths.ca_certificate, cert=paths.certificate(identities.ADMIN))

    async def token_for(name: str) -> str:
        with suppress(AlreadyExists):  # it had no answer to what comes next
            await admin.create(an_object(Key("Host", "", name), {"taints": [{"key": FAKE_TAINT, "value": "true"}]}))
        return await admin.account.host_token(name)

    def dial(identity: Identity, *, anonymous: bool = False) -> Client:
        joined = not anonymous and identity.life() is not None
        cert = (identity.certificate_path, identity.key_path) if joined else None
        return connect(url, ca=paths.ca_certificate, cert=cert)

    hosts = FakeHosts(
        settings=FakeSettings(directory=paths.fake, heartbeat_seconds=settings.heartbeat_seconds),
        connect=dial,
        sides=HOST_SIDES,
        clock=SystemClock(),
        metrics=AgentMetrics(CollectorRegistry()),
    )
    names = [fake_host_name(ordinal) for ordinal in range(first, first + count)]
    await run_fake_hosts(names, hosts, token_for=token_for, first=first)


if __name__ == "__main__":
    uvloop.run(agents(Paths(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])))
