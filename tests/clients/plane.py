"""A control plane for clients that know nothing of us: the api over TLS and the controller, in a thread of their own.

Clients that block may be called from the test as they are. Two tenants, their projects and people are those of
`tests.api.world`; nothing runs on hosts, as there are none.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bessemer.core.ports import CONTROLLER
from bessemer.drivers.oidc.fake import FakeIssuers
from bessemer.kinds import KINDS
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.loop import Loop
from tests.api.kubectl import Kubectl, kubectl
from tests.api.world import Served, World, served, world

T = TypeVar("T")
PROJECT = "acme--lab"


@dataclass
class Plane:
    """A running control plane. ``kubectl`` is its administrator's."""

    served: Served
    kubectl: Kubectl
    loop: asyncio.AbstractEventLoop

    @property
    def config(self) -> Path:
        """The administrator's kubeconfig, in the project."""
        return self.kubectl.config

    @property
    def url(self) -> str:
        return self.served.url

    @property
    def ca(self) -> Path:
        return self.served.directory / "ca.crt"

    def run(self, work: Callable[[World], Awaitable[T]], *, seconds: float = 30) -> T:
        """Do something where the control plane runs."""

        async def done() -> T:
            return await work(self.served.world)

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(seconds)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Ask the api in process, as the administrator."""
        return self.run(lambda w: w.call(method, path, body, **options)).json

    def config_of(self, user: str) -> Path:
        """The kubeconfig of somebody who has signed in."""
        token = self.run(lambda w: w.login(user))
        said = yaml.safe_load(self.config.read_text())
        said["users"][0]["user"] = {"token": token}
        path = self.served.directory / f"kubeconfig-{user}"
        path.write_text(yaml.safe_dump(said))
        return path


@contextmanager
def plane(folder: Path, *, place: str = ":memory:") -> Iterator[Plane]:
    """One that runs for as long as the block lasts."""
    up: dict[str, Any] = {}
    ready, stop = threading.Event(), asyncio.Event()

    def serve() -> None:
        with asyncio.Runner() as runner:
            up["loop"] = runner.get_loop()
            runner.run(_serve(folder, place, up=up, ready=ready, stop=stop))

    thread = threading.Thread(target=serve, name="control plane")
    thread.start()
    try:
        assert ready.wait(30), "the control plane does not start"
        assert "served" in up, "the control plane failed"
        yield Plane(up["served"], kubectl(up["served"]), up["loop"])
    finally:
        if thread.is_alive():
            up["loop"].call_soon_threadsafe(stop.set)
        thread.join(30)


async def _serve(folder: Path, place: str, *, up: dict[str, Any], ready: threading.Event, stop: asyncio.Event) -> None:
    try:
        async with AsyncExitStack() as stack:
            w = await stack.enter_async_context(world(place=place))
            found = await stack.enter_async_context(served(w, folder))
            store, fleet = w.store, FleetFeed(w.store.objects, w.clock)
            context = Context(
                objects=store.objects,
                capacity=store.capacity,
                ledger=store.ledger,
                leases=store.leases,
                fleet=fleet,
                importer=None,  # type: ignore[arg-type]  # nobody imports anything here
                issuers=FakeIssuers(),
                clock=w.clock,
            )
            loop = Loop(
                KINDS,
                context,
                objects=store.objects,
                leases=store.leases,
                events=store.events,
                clock=w.clock,
                writer=CONTROLLER,
            )
            works = [asyncio.ensure_future(work) for work in (loop.run(), fleet.run())]
            up["served"] = found
            ready.set()
            await stop.wait()
            await _let_go()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
    finally:
        ready.set()
        await _let_go()


async def _let_go() -> None:
    """End what clients keep open and never say goodbye to."""
    open_ones: Any = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]
    for transport in list(open_ones.values()):
        transport.abort()
    await asyncio.sleep(0.01)
