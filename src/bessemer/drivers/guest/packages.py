"""Packages of the distribution, downloaded and unpacked, never installed. Works as any user.

apt verifies what it downloads against the signed index. No version is named here: the index says which is current.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.scratch import refusal

_URI = re.compile(r"^'[^']+' (\S+) (\d+) SHA256:([0-9a-f]{64})$", re.MULTILINE)
_DEPENDS = re.compile(r"^[ \t]*\|?Depends: (linux-image-\S+)$", re.MULTILINE)
_TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Package:
    """A package file that was verified just now."""

    name: str
    version: str
    path: Path


class Packages:
    """What the distribution offers, kept in ``cache``."""

    def __init__(self, cache: Path) -> None:
        self._debs = cache / "debs"
        self._own = cache / "apt"
        self._nothing = cache / "apt" / "nothing"
        self._refreshed = False

    async def kernel(self, candidates: Sequence[str]) -> str:
        """The kernel package behind the first of these metapackages that the distribution has."""
        for attempt in range(2):
            for candidate in candidates:
                code, out = await self._run("apt-cache", "depends", "--important", candidate, check=False)
                found = _DEPENDS.search(out) if code == 0 else None
                if found:
                    return found[1]
            if attempt == 0:
                await self._refresh()
        raise DriverError("PackagesUnavailable", f"the distribution has none of {', '.join(candidates)}")

    async def download(self, name: str) -> Package:
        """The current version of a package, from the cache if it is there. Raises DriverError."""
        _make(self._debs)
        try:
            return await self._fetch(name)
        except DriverError as error:
            if self._refreshed or error.reason == "DiskFull":
                raise
        # The index of this machine may be older than the mirror: with one of our own it is asked again, once.
        await self._refresh()
        return await self._fetch(name)

    async def unpack(self, package: Package, dest: Path) -> None:
        """Take the package's files out below ``dest``; none of its scripts run."""
        await self._run("dpkg-deb", "--extract", str(package.path), str(dest))

    async def _fetch(self, name: str) -> Package:
        # Asked where no file lies: apt names no source of a package that the current directory holds already.
        _make(self._nothing)
        _, out = await self._run("apt-get", "download", "--print-uris", name, cwd=self._nothing)
        found = _URI.search(out)
        if found is None:
            raise DriverError("PackagesUnavailable", f"the distribution offers no package {name}", internal=out[-500:])
        path = self._debs / found[1]
        if await asyncio.to_thread(_sha256, path) != found[3]:
            await self._run("apt-get", "download", name, cwd=self._debs)
        if await asyncio.to_thread(_sha256, path) != found[3]:
            raise DriverError("PackagesUnavailable", f"package {name} is not what the index says")
        return Package(name, found[1].split("_")[1].replace("%3a", ":"), path)

    async def _refresh(self) -> None:
        _make(self._own / "lists" / "partial")
        self._refreshed = True
        await self._run("apt-get", "update")

    async def _run(self, *argv: str, cwd: Path | None = None, check: bool = True) -> tuple[int, str]:
        if argv[0].startswith("apt"):
            argv = (argv[0], *self._options(), *argv[1:])
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=cwd,
                env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except FileNotFoundError as error:
            raise DriverError("PackagesUnavailable", f"{argv[0]} is not on this machine") from error
        out = await _output(process)
        if check and process.returncode != 0:
            raise _failure(argv[0], out)
        return process.returncode or 0, out

    def _options(self) -> list[str]:
        """Caches of our own, and no change of user: apt's own could not read our directories."""
        pairs = [f"Dir::Cache={self._own}", "APT::Sandbox::User=root"]
        if self._refreshed:
            pairs.append(f"Dir::State::lists={self._own / 'lists'}")
        return [word for pair in pairs for word in ("-o", pair)]


async def _output(process: asyncio.subprocess.Process) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError as error:
        raise DriverError("PackagesUnavailable", "the distribution's mirror does not answer") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(errors="replace")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(error, "a folder for packages cannot be made", reason="PackagesUnavailable") from error


def _failure(program: str, out: str) -> DriverError:
    if os.strerror(errno.ENOSPC) in out or "enough free space" in out:
        return DriverError("DiskFull", "the disk is full while unpacking packages", internal=out[-2000:])
    return DriverError("PackagesUnavailable", f"{program} failed", internal=out[-2000:])


def _sha256(path: Path) -> str:
    if not path.exists():
        return ""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
