"""The initramfs archive, read back by an independent reader of the format."""

from __future__ import annotations

from bessemer.drivers.guest import newc


def read(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and data by name, as the kernel's documentation describes ``newc``."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        assert archive[at : at + 6] == b"070701"
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = at + 110 + name_size + -(110 + name_size) % 4
        if name == "TRAILER!!!":
            return found
        assert fields[2] == fields[3] == fields[5] == 0, "owned by root, at time 0"
        found[name] = (mode, archive[start : start + size])
        at = start + size + -size % 4


def test_what_goes_in_comes_out() -> None:
    tree = {
        "init": newc.link("bin/busybox"),
        "bin/busybox": newc.file(b"\x7fELF", executable=True),
        "etc/odd": newc.file(b"12345"),
        "dev/console": newc.character_device(5, 1),
        "proc": newc.directory(),
    }
    found = read(newc.archive(tree))
    assert found == {
        "init": (0o120777, b"bin/busybox"),
        "bin": (0o040755, b""),
        "bin/busybox": (0o100755, b"\x7fELF"),
        "etc": (0o040755, b""),
        "etc/odd": (0o100644, b"12345"),
        "dev": (0o040755, b""),
        "dev/console": (0o020600, b""),
        "proc": (0o040755, b""),
    }
    assert [*found] == sorted(found), "a directory comes before what it holds"


def test_the_order_of_the_tree_does_not_matter() -> None:
    tree = {name: newc.file(name.encode()) for name in ("b/2", "a", "b/1")}
    assert newc.archive(tree) == newc.archive(dict(reversed(tree.items())))
