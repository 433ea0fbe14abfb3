"""Which kernel modules a guest needs, with all that they depend on, in the order in which they load.

Read from the modules themselves (their ``.modinfo``), so that nothing on this machine needs depmod or modprobe.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bessemer.core.errors import DriverError

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SOFT = re.compile(rb"\0softdep=pre: ([^\0]*)\0")


class ModuleTree:
    """The modules below ``lib/modules/VERSION`` of an unpacked kernel package."""

    def __init__(self, root: Path) -> None:
        self._files = {_key(path): path for path in sorted(root.rglob("*.ko*"))}
        builtin = root / "modules.builtin"
        lines = builtin.read_text().split() if builtin.exists() else []
        self._builtin = frozenset(_key(Path(line)) for line in lines)

    def load_order(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """The modules' contents by name, dependencies first. What is built in is left out.

        Raises DriverError ``ImageBuildFailed`` for one that the kernel lacks.
        """
        done: dict[str, bytes] = {}
        for name in wanted:
            self._visit(name.replace("-", "_"), done, required=True)
        return done

    def _visit(self, name: str, done: dict[str, bytes], *, required: bool) -> None:
        if name in done or name in self._builtin:
            return
        path = self._files.get(name)
        if path is None and required:
            raise DriverError("ImageBuildFailed", f"the distribution's kernel has no module {name}")
        if path is None:
            return
        content = _read(path)
        for dependency in _names(_DEPENDS, content):
            self._visit(dependency, done, required=True)
        for dependency in _names(_SOFT, content):
            self._visit(dependency, done, required=False)
        done[name] = content


def _key(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix != ".ko":
        raise DriverError("ImageBuildFailed", f"modules packed as {path.suffix} are not read here")
    return content


def _names(pattern: re.Pattern[bytes], content: bytes) -> Iterator[str]:
    for found in pattern.findall(content):
        yield from (word.replace("-", "_") for word in found.decode().replace(",", " ").split())
