"""Reads the kubeconfig that ``up`` writes, and any other whose credentials are a certificate or a token."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bessemer.core.errors import Malformed


@dataclass(frozen=True, slots=True)
class Connection:
    """What a context says. ``ca`` and ``cert`` (certificate, key) are PEM."""

    url: str
    ca: bytes | None
    cert: tuple[bytes, bytes] | None
    token: str
    namespace: str


def read_kubeconfig(path: Path, *, context: str = "") -> Connection:
    """``context`` "" is the file's current one. Raises Malformed for a file that says no server."""
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Malformed(f"{path} cannot be read as a kubeconfig: {error}") from error
    try:
        chosen = _named(config, "contexts", name=context or config.get("current-context", ""))["context"]
        cluster = _named(config, "clusters", name=chosen["cluster"])["cluster"]
        user = _named(config, "users", name=chosen["user"])["user"] if chosen.get("user") else {}
        url = str(cluster["server"])
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"{path} names no server for its current context") from error
    try:
        ca = _pem(path, cluster, field="certificate-authority")
        certificate, key = _pem(path, user, field="client-certificate"), _pem(path, user, field="client-key")
    except (OSError, ValueError) as error:
        raise Malformed(f"{path} names a certificate or key that cannot be read: {error}") from error
    cert = (certificate, key) if certificate and key else None
    return Connection(url, ca, cert, str(user.get("token", "")), str(chosen.get("namespace", "")))


def _named(config: dict[str, Any], what: str, *, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next((item for item in config.get(what) or () if item["name"] == name), {})
    return found


def _pem(config: Path, values: dict[str, Any], *, field: str) -> bytes | None:
    if values.get(field):
        return (config.parent / str(values[field])).read_bytes()
    data = values.get(f"{field}-data")
    return base64.b64decode(data) if data else None


def kubeconfig_of(url: str, ca: bytes | None, *, token: str, namespace: str, user: str) -> str:
    """The text of a kubeconfig that needs no other file: kubectl's, Helm's, and ours."""
    cluster = {"server": url, **({"certificate-authority-data": base64.b64encode(ca).decode()} if ca else {})}
    context = {"cluster": "bessemer", "user": user, "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bessemer", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "bessemer", "context": context}],
        "current-context": "bessemer",
    }
    return yaml.safe_dump(config, sort_keys=False)
