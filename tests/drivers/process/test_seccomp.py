"""The filter, run by a reading of BPF of our own: both architectures, without a kernel."""

from __future__ import annotations

import errno
import struct

import pytest

from bessemer.drivers.process.seccomp import program

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
X86_64, AARCH64 = ("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)


def refused(number: int) -> int:
    return 0x00050000 | number


def verdict(code: bytes, *, call: int, argument: int = 0, architecture: int) -> int:
    """What the kernel would answer to a system call with this first argument."""
    data = struct.pack("=IIQQ", call, architecture, 0, argument)
    steps = list(struct.iter_unpack("=HBBI", code))
    accumulator = at = 0
    while True:
        operation, yes, no, value = steps[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown operation {operation:#x}")


@pytest.mark.parametrize(
    ("machine", "calls"),
    [
        (X86_64, {"read": 0, "mount": 165, "vhangup": 153, "acct": 163, "clone": 56, "socket": 41, "execve": 59}),
        (AARCH64, {"read": 63, "mount": 40, "vhangup": 58, "acct": 89, "clone": 220, "socket": 198, "execve": 221}),
    ],
    ids=["x86_64", "aarch64"],
)
def test_what_is_denied_and_what_is_not(machine: tuple[str, int], calls: dict[str, int]) -> None:
    name, architecture = machine
    code = program(name)

    def ask(call: str, argument: int = 0) -> int:
        return verdict(code, call=calls[call], argument=argument, architecture=architecture)

    assert {ask("read"), ask("execve")} == {ALLOWED}
    assert {ask("mount"), ask("vhangup"), ask("acct")} == {refused(errno.EPERM)}
    threads = 0x3D0F00  # what pthread_create asks for
    assert ask("clone", threads) == ALLOWED
    assert ask("clone", 0x10000000 | 17) == refused(errno.EPERM)
    assert [family for family in range(64) if ask("socket", family) == ALLOWED] == [1, 2, 10, 16]
    assert ask("socket", 40) == refused(errno.EAFNOSUPPORT)
    assert verdict(code, call=435, architecture=architecture) == refused(errno.ENOSYS)


def test_another_architecture_s_calls_kill() -> None:
    for (name, _), (_, other) in ((X86_64, AARCH64), (AARCH64, X86_64), (X86_64, ("i386", 0x40000003))):
        assert verdict(program(name), call=0, architecture=other) == KILLED


def test_the_other_numbers_of_x32_are_none() -> None:
    assert verdict(program("x86_64"), call=0x40000000 | 165, architecture=X86_64[1]) == refused(errno.ENOSYS)


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(KeyError):
        program("sparc")
