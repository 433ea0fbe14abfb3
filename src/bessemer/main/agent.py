"""``bessemer agent``: the agent of this machine, or the agents of all fake hosts in one process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from bessemer.agent.agent import Agent, AgentSettings
from bessemer.agent.fake import FakeHosts, FakeSettings, run_fake_hosts
from bessemer.agent.identity import Identity
from bessemer.agent.listener import serve_metrics
from bessemer.agent.metrics import AgentMetrics
from bessemer.cli.verbs import AgentOptions
from bessemer.client import Client, an_object, connect
from bessemer.core.clock import SystemClock
from bessemer.core.errors import AlreadyExists, Invalid
from bessemer.core.resource import Key
from bessemer.drivers.engine.doors import default_folder
from bessemer.drivers.inspect.protocol import Inspect
from bessemer.kinds import HOST_SIDES
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.main import identities
from bessemer.main.hostdrivers import local_drivers
from bessemer.main.process import have_read, run
from bessemer.main.settings import (
    METRICS_SOCKET,
    TOKEN_FILE,
    Paths,
    Settings,
    fake_host_name,
    host_name,
    joined,
    load,
    state_directory,
)

_TOKEN_LOOK_SECONDS = 0.05
_BEATS_TO_A_PING = 1.25
_PING_SECONDS_MIN = 5.0
"""An agent's socket is asked whether it lives once a beat was not answered: one that is in order never is. It has half
as long to say so, which an api with much to do may take."""

_log = structlog.get_logger("agent")


def run_agent(options: AgentOptions) -> int:
    """Run until told to stop. Raises Invalid for options that name no server."""
    have_read()
    paths = Paths(state_directory(options.state))
    settings = load(paths)
    if options.fake:
        return run(_fake(paths, settings))
    name = options.name or settings.host_name or host_name()
    return run(_real(paths, settings, options=options, name=name))


class _Connector:
    """Implements `agent.link.Connect`: clients of one api, trusting its authority, for agents that beat so often."""

    def __init__(self, url: str, ca: Path, *, heartbeat_seconds: float) -> None:
        self._url = url
        self._ca = ca
        self._ping_seconds = max(heartbeat_seconds * _BEATS_TO_A_PING, _PING_SECONDS_MIN)

    def __call__(self, identity: Identity, *, anonymous: bool = False) -> Client:
        joined = not anonymous and identity.life() is not None
        cert = (identity.certificate_path, identity.key_path) if joined else None
        return connect(self._url, ca=self._ca, cert=cert, ping_seconds=self._ping_seconds)


async def _real(paths: Paths, settings: Settings, *, options: AgentOptions, name: str) -> None:
    url = options.server or identities.urls(settings)["api"]
    ca = options.ca or paths.ca_certificate
    if not ca.exists():
        raise Invalid(f"{ca} does not exist: give the authority of the api with --ca")
    drivers = local_drivers(paths.agent, vllm=settings.vllm).for_agent()
    agent_settings = AgentSettings(
        host=name,
        directory=paths.agent,
        token=options.token or await _token(paths, drivers.inspect),
        heartbeat_seconds=settings.heartbeat_seconds,
        content_budget_bytes=settings.content_budget_bytes,
        content_reserve_bytes=settings.content_reserve_bytes,
        door_host=options.door_host,
    )
    registry = CollectorRegistry()
    agent = Agent(
        agent_settings,
        connect=_Connector(url, ca, heartbeat_seconds=settings.heartbeat_seconds),
        drivers=drivers,
        sides=HOST_SIDES,
        clock=SystemClock(),
        metrics=AgentMetrics(registry),
    )
    _log.info("agent starts", host=name, server=url)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_metrics(registry, paths.agent / METRICS_SOCKET))
        group.create_task(agent.run())


async def _token(paths: Paths, inspect: Inspect) -> str:
    """The one-time token that lies beside the agent, or "" for one that has joined. ``up`` starts an agent before the
    api can give it a token, so that both read their code at the same time; so it is waited for, and what takes long to
    find out about this machine (whether it runs a guest, how it isolates) is found out meanwhile."""
    file = paths.agent / TOKEN_FILE
    if not (file.exists() or joined(paths)):
        _log.info("waits for a join token", file=str(file))
        paths.agent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await inspect.inventory()
    while not (file.exists() or joined(paths)):  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(_TOKEN_LOOK_SECONDS)
    return file.read_text().strip() if file.exists() else ""


async def _fake(paths: Paths, settings: Settings) -> None:
    certificate, key = paths.certificate(identities.ADMIN)
    url = identities.urls(settings)["api"]
    admin = connect(url, ca=paths.ca_certificate, cert=(certificate, key))

    async def token_for(name: str) -> str:
        spec = {"site": settings.site, "taints": [{"key": FAKE_TAINT, "value": "true"}]}
        try:
            await admin.create(an_object(Key("Host", "", name), spec))
        except AlreadyExists:
            _log.info("fake host joins again", host=name)
        return await admin.account.host_token(name)

    registry = CollectorRegistry()
    hosts = FakeHosts(
        settings=FakeSettings(
            directory=paths.fake, doors=default_folder(paths.fake), heartbeat_seconds=settings.heartbeat_seconds
        ),
        connect=_Connector(url, paths.ca_certificate, heartbeat_seconds=settings.heartbeat_seconds),
        sides=HOST_SIDES,
        clock=SystemClock(),
        metrics=AgentMetrics(registry),
    )
    names = [fake_host_name(ordinal) for ordinal in range(settings.fake_hosts)]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_metrics(registry, paths.fake / METRICS_SOCKET))
            group.create_task(run_fake_hosts(names, hosts, token_for=token_for))
    finally:
        await admin.close()
