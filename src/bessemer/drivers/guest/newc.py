"""An initramfs in the kernel's ``newc`` format: equal trees give equal bytes, whoever builds them and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_FILE, _DIRECTORY, _LINK, _DEVICE = 0o100000, 0o040000, 0o120000, 0o020000


@dataclass(frozen=True, slots=True)
class Entry:
    """A node of the tree. ``data`` is a file's content or a link's target; ``device`` is (major, minor)."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(data: bytes, *, executable: bool = False) -> Entry:
    return Entry(_FILE | (0o755 if executable else 0o644), data)


def link(target: str) -> Entry:
    return Entry(_LINK | 0o777, target.encode())


def directory() -> Entry:
    return Entry(_DIRECTORY | 0o755)


def character_device(major: int, minor: int) -> Entry:
    return Entry(_DEVICE | 0o600, device=(major, minor))


def archive(tree: Mapping[str, Entry]) -> bytes:
    """The tree (paths without a leading slash) as an archive, owned by root, at time 0. Missing parents are added."""
    whole = dict(tree)
    for path in tree:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            whole.setdefault("/".join(parts[:depth]), directory())
    out = bytearray()
    for inode, (path, entry) in enumerate(sorted(whole.items()), start=1):
        out += _node(inode, path, entry=entry)
    out += _node(0, "TRAILER!!!", entry=Entry(0))
    out += b"\0" * (-len(out) % 512)
    return bytes(out)


def _node(inode: int, path: str, *, entry: Entry) -> bytes:
    name = path.encode() + b"\0"
    owner, links, mtime, check = 0, 1, 0, 0
    fields = (inode, entry.mode, owner, owner, links, mtime, len(entry.data), 0, 0, *entry.device, len(name), check)
    head = ("070701" + "".join(f"{value:08X}" for value in fields)).encode() + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
