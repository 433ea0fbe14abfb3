"""A real kube-apiserver with etcd behind it, as the peer of `control_plane`: started here, in the same run.

``--peer DIR`` names a folder that holds the two programs, anywhere below it (`tools/kube-peer` fills one). They get a
certificate authority of their own, RBAC, client certificates and one custom kind at the very path of ours, so that the
same requests go to both. etcd keeps its defaults: it syncs each write to the scratch disk.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from _common import READY_SECONDS, Target, start, stop
from _wire import Server, Wire, client_tls, request
from bessemer.api.ca import Pair, create_ca

PROGRAMS = ("etcd", "kube-apiserver")
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_DEVICES = {"type": "object", "properties": {"count": _COUNT, "model": _TEXT}}
_SPEC = {"description": _TEXT, "cores": _COUNT, "memory": _TEXT, "disk": _TEXT, "devices": _DEVICES}
_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "flavors.bessemer.dev"},
    "spec": {
        "group": "bessemer.dev",
        "scope": "Cluster",
        "names": {"plural": "flavors", "singular": "flavor", "kind": "Flavor", "listKind": "FlavorList"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": _SPEC, "required": ["cores", "memory"]},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What the two programs read, in one folder."""

    folder: Path
    etcd_port: int
    peer_port: int
    api_port: int

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def pair(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


def binaries(folder: Path) -> dict[str, Path]:
    """The programs below ``folder``. Raises FileNotFoundError that names what is missing."""
    found: dict[str, Path] = {}
    for name in PROGRAMS:
        path = next(filter(_is_program, sorted(folder.rglob(name))), None)
        if path is None:
            raise FileNotFoundError(f"{folder} holds no program called {name}; the peer needs {' and '.join(PROGRAMS)}")
        found[name] = path.resolve()
    return found


def _is_program(path: Path) -> bool:
    """An executable of this machine's kind; a package also has an init script of its name."""
    if not path.is_file() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


@asynccontextmanager
async def kube(programs: dict[str, Path], folder: Path) -> AsyncIterator[tuple[Target, str]]:
    """An apiserver that serves the custom kind, and what it calls itself. ``folder`` is empty, on a real disk."""
    files = _prepare(folder)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, argv in (("etcd", _etcd(files)), ("kube-apiserver", _apiserver(files))):
            running.append(start([str(programs[name]), *argv], log=folder / f"{name}.log"))
        server = Server(port=files.api_port, tls=client_tls(files.ca, files.pair("admin")))
        version = await _ready(server, running, folder=folder)
        await _serve_kind(server)
        pids = tuple(process.pid for process in running)
        yield Target(port=files.api_port, ca=files.ca, cert=files.pair("admin"), pids=pids), version
    finally:
        for process in reversed(running):
            stop(process)


def _prepare(folder: Path) -> _Files:
    ports = []
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
            ports.append(each.getsockname()[1])
    files = _Files(folder=folder, etcd_port=ports[0], peer_port=ports[1], api_port=ports[2])
    authority = create_ca("bench")
    files.ca.write_bytes(authority.certificate)
    _write(files, "server", authority.issue("kube-apiserver", sans=("localhost", "127.0.0.1")))
    _write(files, "admin", authority.issue("admin", groups=("system:masters",)))
    _write(files, "accounts", authority.issue("accounts"))
    return files


def _write(files: _Files, name: str, pair: Pair) -> None:
    certificate, key = files.pair(name)
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    key.chmod(0o600)


def _etcd(files: _Files) -> Sequence[str]:
    clients, peers = f"http://127.0.0.1:{files.etcd_port}", f"http://127.0.0.1:{files.peer_port}"
    return (
        f"--data-dir={files.folder / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    )


def _apiserver(files: _Files) -> Sequence[str]:
    (server, server_key), (accounts, accounts_key) = files.pair("server"), files.pair("accounts")
    return (
        f"--etcd-servers=http://127.0.0.1:{files.etcd_port}",
        "--bind-address=127.0.0.1",
        f"--secure-port={files.api_port}",
        "--advertise-address=192.0.2.1",  # it refuses a loopback address; nobody dials this one
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={server}",
        f"--tls-private-key-file={server_key}",
        f"--client-ca-file={files.ca}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={accounts}",
        f"--service-account-signing-key-file={accounts_key}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--cert-dir={files.folder}",
        # More than the load ever has under way: it is not to be measured against a limit.
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
    )


async def _ready(server: Server, running: list[subprocess.Popen[bytes]], *, folder: Path) -> str:
    """Its version once it is ready. Raises RuntimeError with the end of the log of what died."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            for process, name in zip(running, PROGRAMS, strict=True):
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended:\n{(folder / f'{name}.log').read_text()[-2000:]}")
            try:
                status, _ = await _ask(server, request("GET", "/readyz"))
            except (OSError, ssl.SSLError):
                status = 0
            if status == 200:
                break
            await asyncio.sleep(0.1)
    _, body = await _ask(server, request("GET", "/version"))
    return str(orjson.loads(body)["gitVersion"]).removeprefix("v")


async def _serve_kind(server: Server) -> None:
    status, body = await _ask(server, request("POST", CRD_PATH, orjson.dumps(_CRD)))
    if status != 201:
        raise RuntimeError(f"the custom kind was refused: {status} {body[:300]!r}")
    async with asyncio.timeout(READY_SECONDS):
        while True:
            _, body = await _ask(server, request("GET", f"{CRD_PATH}/flavors.bessemer.dev"))
            conditions = orjson.loads(body).get("status", {}).get("conditions") or ()
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                # Its handler follows the condition by a moment.
                status, _ = await _ask(server, request("GET", "/apis/bessemer.dev/v1beta1/flavors"))
                if status == 200:
                    return
            await asyncio.sleep(0.1)


async def _ask(server: Server, asked: bytes) -> tuple[int, bytes]:
    wire = await Wire.open(server)
    try:
        return await wire.ask(asked)
    finally:
        wire.close()
