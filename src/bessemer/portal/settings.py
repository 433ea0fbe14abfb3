"""What a portal is told by whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalSettings:
    """``gateway_url`` is where portal and readers reach the gateway, with or without its ``/v1``; ``ca_path`` is
    the authority that signed both servers (None: the machine's own). ``certificate`` is (certificate, key) of
    ``system:portal``: it gives no right, but lets the api count attempts to sign in by whoever makes them.
    ``factory`` is whose installation it is."""

    api_url: str
    gateway_url: str
    ca_path: Path | None = None
    certificate: tuple[Path, Path] | None = None
    factory: str = "Bessemer"
    version: str = ""
