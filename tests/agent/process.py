"""`bessemer agent` as a process of its own, started and killed as a machine has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bessemer.main.hostdrivers import LocalDrivers, local_drivers
from bessemer.main.settings import Paths

ROOT = Path(__file__).parents[2]


@dataclass
class RealAgent:
    """``state`` is its state directory; ``prefix`` stands before the command, as ``nsenter`` does."""

    state: Path
    prefix: tuple[str, ...] = field(default=(), kw_only=True)
    agent: subprocess.Popen[bytes] | None = field(default=None, kw_only=True)

    @property
    def directory(self) -> Path:
        return Paths(self.state).agent

    @property
    def drivers(self) -> LocalDrivers:
        return local_drivers(self.directory)

    @property
    def log(self) -> Path:
        return self.state / "agent.log"

    def run(self, *words: str, name: str, server: str, ca: bytes) -> None:
        """As a person starts it on a machine that has no control plane of its own."""
        trusted = self.state / f"{name}-ca.crt"
        trusted.write_bytes(ca)
        said = ["agent", f"--state={self.state}", f"--server={server}", f"--ca={trusted}", f"--name={name}", *words]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BESSEMER_")}
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "bessemer", *said],
                cwd="/",
                env={**kept, "PYTHONPATH": str(ROOT / "src"), "BESSEMER_HEARTBEAT_SECONDS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9."""
        if self.agent is not None:
            os.killpg(self.agent.pid, signal.SIGKILL)
            self.agent.wait()
            self.agent = None
