"""Our own processes by name, and how each is started. Data alone, and quick to read: ``up`` starts with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from bessemer.drivers.process.protocol import Command
from bessemer.main.settings import GATEWAYS_MAX, SEAL_KEYS, Paths, variables

CONTROL, GATEWAY, AGENT, FAKE = "control", "gateway", "agent", "fake"
ORDER: tuple[str, ...] = (CONTROL, GATEWAY, AGENT, FAKE)
"""The order of starting; stopping goes backwards."""

GRACE_SECONDS = 10.0
"""How long a part may take to end: its listener alone finishes requests for up to five seconds."""

WORDS: Mapping[str, tuple[str, ...]] = {
    CONTROL: ("server", "--parts", "api,controller,portal"),
    GATEWAY: ("server", "--parts", "gateway"),
    AGENT: ("agent",),
    FAKE: ("agent", "--fake"),
}


BESIDE: tuple[str, ...] = tuple(f"{GATEWAY}-{number}" for number in range(2, GATEWAYS_MAX + 1))
"""Further processes of the gateway's, which its first one starts where the settings say so."""

NUMBER = "--number"


def words(name: str) -> tuple[str, ...]:
    """What a part is started with, but the state directory."""
    part, _, number = name.partition("-")
    return (*WORDS[part], NUMBER, number) if number else WORDS[part]


def command(paths: Paths, name: str) -> Command:
    """How a part is started. The marker ends the command line and holds the absolute state directory.

    What the shell's variables say stands in the settings' file by then, with ports chosen where they say 0: a part
    reads the file alone.
    """
    tail = (*words(name), "--state", str(paths.state))
    return Command(
        name=name,
        argv=(sys.executable, "-m", "bessemer.main.part", *tail),
        marker=" ".join(tail),
        log_path=paths.logs / f"{name}.log",
        env=environment(store=name == CONTROL),
    )


def environment(*, store: bool = True) -> dict[str, str]:
    """Ours without what wins over the settings' file; for those who open no store also without the password of a
    database, and without keys that seal."""
    without = variables() if store else variables() | {"PGPASSWORD", SEAL_KEYS}
    return {key: value for key, value in os.environ.items() if key not in without}
