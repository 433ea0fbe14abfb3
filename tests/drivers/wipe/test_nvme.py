"""What an NVMe controller is told, by one that is drawn from the specification; a real kernel's is in
`tests/drivers/passthrough/test_kernel.py`."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass, field

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.wipe.nvme import (
    BLOCK_SANITIZE,
    CRYPTO_FORMAT,
    CRYPTO_SANITIZE,
    USER_FORMAT,
    Namespace,
)
from bessemer.drivers.wipe.real import BlockMedium

SIZE = 1 << 40


@dataclass
class Controller:
    """Answers admin commands. ``log`` is the state and the progress of a sanitize, as the next look finds them."""

    oacs: int = 0b1010
    fna: int = 0
    sanicap: int = 0
    cmic: int = 0
    namespaces: tuple[int, ...] = (3,)
    log: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0xFFFF)])
    refuses: frozenset[int] = frozenset()
    told: list[tuple[int, int, int]] = field(default_factory=list)

    def __call__(self, _fd: int, request: int, command: bytearray | None = None) -> int:
        if request == 0x4E40:
            return 3
        assert request == 0xC0484E41
        assert command is not None
        assert len(command) == 72
        opcode, namespace = command[0], int.from_bytes(command[4:8], "little")
        address, length = struct.unpack_from("<Q", command, 24)[0], struct.unpack_from("<I", command, 36)[0]
        word = struct.unpack_from("<I", command, 40)[0]
        if opcode in self.refuses:
            return 0x4002
        if opcode == 0x06:
            answer = self.identified(word, namespace)
        elif opcode == 0x02:
            assert (word & 0xFF, namespace, (word >> 16) + 1) == (0x81, 0xFFFFFFFF, length // 4)
            state, progress = self.log.pop(0) if len(self.log) > 1 else self.log[0]
            answer = struct.pack("<HH", progress, state).ljust(length, b"\0")
        else:
            self.told.append((opcode, namespace, word))
            return 0
        assert len(answer) == length
        ctypes.memmove(address, answer, length)
        return 0

    def identified(self, what: int, namespace: int) -> bytes:
        page = bytearray(4096)
        if what == 1:
            page[76], page[256], page[524], page[328] = self.cmic, self.oacs, self.fna, self.sanicap
        elif what == 0x10:
            struct.pack_into(f"<{len(self.namespaces)}I", page, 0, *self.namespaces)
        else:
            assert (what, namespace) == (0, 3)
            page[26], page[29] = 0b0110010, 0b1001  # format 0b10010, metadata in line; protection
        return bytes(page)


def of(controller: Controller) -> Namespace:
    found = Namespace.of(0, ioctl=controller)
    assert found is not None
    return found


def names(controller: Controller) -> list[str]:
    return [way.name for way in of(controller).ways()]


def test_the_surest_comes_first_and_nothing_that_the_controller_cannot() -> None:
    everything = Controller(sanicap=0b111, fna=0b100)
    ways = [CRYPTO_SANITIZE, BLOCK_SANITIZE, CRYPTO_FORMAT, USER_FORMAT]
    assert names(everything) == [way.name for way in ways]
    assert names(Controller(sanicap=0b010)) == [BLOCK_SANITIZE.name, USER_FORMAT.name]
    assert names(Controller(oacs=0)) == []


@pytest.mark.parametrize("cmic", [0b010, 0b100])
def test_a_subsystem_that_others_have_as_well_is_not_sanitized(cmic: int) -> None:
    assert names(Controller(sanicap=0b111, cmic=cmic)) == [USER_FORMAT.name]


def test_namespaces_that_the_host_does_not_see_are_no_clean_disk() -> None:
    """A guest that has the controller may make some and detach them."""
    with pytest.raises(DriverError) as caught:
        names(Controller(namespaces=(1, 3)))
    assert caught.value.reason == "DiskChanged"
    assert names(Controller(namespaces=(1, 3), sanicap=0b1)) == [CRYPTO_SANITIZE.name], "which alone erases them all"


def test_a_format_keeps_the_format_and_erases() -> None:
    controller = Controller(fna=0b100)
    for way, setting in ((USER_FORMAT, 1), (CRYPTO_FORMAT, 2)):
        assert of(controller).erase(way.name, done_bytes=0, size_bytes=SIZE) == SIZE
        opcode, namespace, word = controller.told.pop()
        assert (opcode, namespace, word >> 9 & 0b111) == (0x80, 3, setting)
        assert (word & 0xF, word >> 4 & 1, word >> 5 & 0b111, word >> 8 & 1, word >> 12 & 0b11) == (2, 1, 1, 1, 1)


@pytest.mark.parametrize(("way", "action"), [(CRYPTO_SANITIZE, 4), (BLOCK_SANITIZE, 2)])
def test_a_sanitize_is_begun_once_and_followed_to_its_end(way: object, action: int) -> None:
    name = CRYPTO_SANITIZE.name if way is CRYPTO_SANITIZE else BLOCK_SANITIZE.name
    # One that was done long ago is no end of this one.
    controller = Controller(log=[(1, 0xFFFF), (2, 0), (2, 0x8000), (2, 0x80FF), (2, 0xFFFF), (1, 0xFFFF)])
    done, seen = 0, []
    while done < SIZE:
        done = of(controller).erase(name, done_bytes=done, size_bytes=SIZE)
        seen.append(done)
    assert seen == [1, 1, SIZE // 2, SIZE // 2, SIZE * 0xFF00 >> 16, SIZE], "in so many steps as one can look at"
    assert controller.told == [(0x84, 0, action)]


def test_a_sanitize_that_another_agent_began_is_not_begun_again() -> None:
    controller = Controller(log=[(2, 0x4000)])
    assert of(controller).erase(CRYPTO_SANITIZE.name, done_bytes=0, size_bytes=SIZE) == SIZE // 4
    assert controller.told == []


def test_what_the_controller_refuses_or_fails_at_is_said() -> None:
    failed = Controller(log=[(3, 0)])
    with pytest.raises(DriverError, match="failed"):
        of(failed).erase(BLOCK_SANITIZE.name, done_bytes=1, size_bytes=SIZE)
    for opcode, reason in ((0x80, "WayRefused"), (0x06, "WipeFailed")):
        with pytest.raises(DriverError) as caught:
            of(Controller(refuses=frozenset({opcode}))).erase(USER_FORMAT.name, done_bytes=0, size_bytes=SIZE)
        assert caught.value.reason == reason


def medium(nvme: Namespace | None = None) -> BlockMedium:
    """As it is once opened."""
    made = BlockMedium.__new__(BlockMedium)
    made._fd, made._size, made._nvme = -1, SIZE, nvme
    return made


def test_of_a_disk_that_hides_something_no_other_way_follows() -> None:
    """Where the sanitize is refused a format would leave the others, and a discard as well."""
    hides, whole = (of(Controller(namespaces=some, sanicap=0b1)) for some in ((1, 3), (3,)))
    assert medium(hides).ways() == (CRYPTO_SANITIZE,)
    assert len(medium(whole).ways()) == 5


def test_only_a_format_may_take_an_hour() -> None:
    seconds: dict[int, int] = {}

    def noted(fd: int, request: int, command: bytearray | None = None) -> int:
        if command is not None:
            seconds[command[0]] = int.from_bytes(command[64:68], "little") // 1000
        return controller(fd, request, command)

    controller = Controller()
    found = Namespace.of(0, ioctl=noted)
    assert found is not None
    for way in (USER_FORMAT, BLOCK_SANITIZE):
        found.erase(way.name, done_bytes=0, size_bytes=SIZE)
    assert seconds == {0x06: 60, 0x02: 60, 0x84: 60, 0x80: 3600}


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EREMOTEIO, errno.EIO])
def test_a_discard_that_fails_is_followed_by_another_way(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """SCSI disks that know none answer EREMOTEIO."""

    def refused(*_: object) -> bytes:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("bessemer.drivers.wipe.real.fcntl.ioctl", refused)
    with pytest.raises(DriverError) as caught:
        medium().erase("discard", 0)
    assert caught.value.reason == "WayRefused"


def test_what_is_no_nvme_has_none() -> None:
    def other(*_: object) -> int:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    assert Namespace.of(0, ioctl=other) is None
