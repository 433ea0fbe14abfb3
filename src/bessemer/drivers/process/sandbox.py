"""The words that put a command behind walls: bubblewrap's options for one `Confined`. Pure but for ``/lib*``.

As root the mounts are made first and the user is given up last (``setpriv``), so that what is bound may lie under a
folder that only root can enter. Without root a user namespace stands in for the user, and ``prlimit`` for the cgroup.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bessemer.core.descriptors import of_children
from bessemer.drivers.process.protocol import Confined

TOOLS = ("/usr/bin/bwrap", "/usr/bin/setpriv", "/usr/bin/prlimit")
BWRAP, SETPRIV, PRLIMIT = TOOLS
TASKSET = "/usr/bin/taskset"

_CACHE = "/etc/ld.so.cache"
_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try")
_DROPS = ("--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")


def options(confined: Confined, *, root: bool) -> tuple[str, ...]:
    """What ``bwrap --args`` reads: namespaces, mounts and environment. The root and ``/dev`` end up read-only."""
    apart = _NAMESPACES if confined.network else (*_NAMESPACES, "--unshare-net")
    words = [*apart, "--new-session", "--hostname", "confined", "--clearenv", "--cap-drop", "ALL"]
    if root:
        words += [word for name in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{name}")]
    else:
        words += ["--unshare-user"]
    own = [(Path("/usr/lib"), "/usr/lib"), *((Path(tool), tool) for tool in (SETPRIV, PRLIMIT))]
    words += _parents([*own, (Path(_CACHE), _CACHE), *confined.binds_ro, *confined.binds_rw])
    for source, target in own:
        words += ["--ro-bind", str(source), target]
    words += ["--ro-bind-try", _CACHE, _CACHE, *_libraries(), "--proc", "/proc", "--dev", "/dev"]
    words += [word for folder in sorted({*map(str, _below_dev(confined))}) for word in ("--dir", folder)]
    words += [word for node in confined.devices for word in ("--dev-bind", str(node), str(node))]
    for folder in ("/tmp", "/dev/shm"):
        words += ["--perms", "1777", "--size", str(confined.tmp_bytes), "--tmpfs", folder]
    for source, target in confined.binds_ro:
        words += ["--ro-bind", str(source), target]
    for source, target in confined.binds_rw:
        words += ["--bind", str(source), target]
    for name, value in confined.env.items():
        words += ["--setenv", name, value]
    return (*words, "--chdir", "/", "--remount-ro", "/dev", "--remount-ro", "/")


def inside(confined: Confined, *, user: int | None, limited: bool) -> tuple[str, ...]:
    """The command as it runs behind the walls: first its limits, then its user, then its own words.

    ``limited`` says that a cgroup holds it; otherwise each of its processes is bounded by itself.
    """
    words = [PRLIMIT, f"--nofile={of_children()}:"]
    if not limited:
        words += [f"--data={confined.memory_bytes}", f"--nproc={confined.pids_max}"]
    if user is not None:
        words += [SETPRIV, f"--reuid={user}", f"--regid={user}", *_DROPS]
    return (*words, *confined.argv)


def _parents(binds: Sequence[tuple[Path, str]]) -> list[str]:
    """The folders above what is bound. bwrap would make them for itself alone, and the process has another user."""
    folders = {str(parent) for _, target in binds for parent in PurePosixPath(target).parents} - {"/"}
    return [word for folder in sorted(folders) for word in ("--dir", folder)]


def _below_dev(confined: Confined) -> list[PurePosixPath]:
    """The folders between ``/dev`` and its devices."""
    above = (parent for node in confined.devices for parent in PurePosixPath(node).parents)
    return [folder for folder in above if folder.is_relative_to("/dev") and folder != PurePosixPath("/dev")]


def _libraries() -> list[str]:
    """``/lib``, ``/lib64`` …: links into ``/usr`` on most systems, folders of their own on others."""
    words: list[str] = []
    for name in ("lib", "lib32", "lib64", "libx32"):
        path, merged = Path("/", name), Path("/usr", name)
        if name != "lib" and merged.is_dir():
            words += ["--ro-bind", str(merged), str(merged)]
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    return words
