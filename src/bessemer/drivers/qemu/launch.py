"""Brings one QEMU into being: opens all that it may touch, confines it, and sees that it answers.

The lock file is held by every process of the launch and then by QEMU itself, for as long as it lives: so no two are
ever started for one uid, even where one agent was killed in the middle and the next begins at once.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.disks.header import virtual_size
from bessemer.drivers.guest.image import open_image
from bessemer.drivers.qemu import qmp
from bessemer.drivers.qemu.confine import Confinement, let_open
from bessemer.drivers.qemu.machine import Files, command
from bessemer.drivers.qemu.protocol import MachineSpec
from bessemer.drivers.qemu.traces import tail

_ANSWER_SECONDS = 30.0
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""Nothing of the agent's own is for a guest that breaks out, and the words below are QEMU's in English."""

_REASONS = (
    # First, since the kernel says "No space left" where its number of namespaces is used up.
    (("unshare: ",), "IsolationUnavailable", "this host gives the agent's user no namespaces for a guest"),
    (("Cannot allocate memory",), "OutOfMemory", "the host has no memory for the guest"),
    (('"write" lock',), "DiskInUse", "another process uses the guest's disk"),
    (("No space left",), "DiskFull", "the host's disk is full"),
    (
        # Before what is said of a program that is not there, in the same words.
        ("/dev/vfio/", "No such file or directory"),
        "PassthroughUnavailable",
        "a device of the guest has no file below /dev/vfio: vfio-pci has it no more",
    ),
    (
        ("No such file or directory",),
        "QemuMissing",
        "a program for guests is not on this machine: install qemu-system-x86",
    ),
)


@dataclass(frozen=True, slots=True)
class Home:
    """A guest's directory, which belongs to the agent; QEMU has no rights in it."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def qmp(self) -> Path:
        return self.path / "qmp.sock"

    @property
    def console(self) -> Path:
        return self.path / "console.sock"

    @property
    def report(self) -> Path:
        return self.path / "report.fifo"

    @property
    def log(self) -> Path:
        return self.path / "serial.log"

    @property
    def errors(self) -> Path:
        return self.path / "qemu.err"


def held(home: Home) -> bool:
    """Whether a launch or a QEMU of this guest may be alive: the lock is held, or gone with the directory."""
    try:
        lock = os.open(home.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


async def launch(spec: MachineSpec, home: Home, *, confinement: Confinement, enter: tuple[str, ...]) -> bool:
    """Start the guest's QEMU and return once it answers (`finish`); False where another launch of it holds the lock.

    ``enter`` are the words that put it into its control group. Raises DriverError.
    """
    with ExitStack() as stack:
        lock = _take_lock(stack, home)
        if lock is None:
            return False
        try:
            await asyncio.to_thread(_unpack, spec, home)
            await _run(spec, home, confinement=confinement, enter=enter, lock=lock)
        except DriverError:
            _drop_boot_files(home)
            raise
    await finish(home)
    return True


async def finish(home: Home) -> None:
    """Wait until the QEMU that was started answers, and drop what it booted from; also after an agent that was killed.

    Raises DriverError ``GuestUnresponsive``, or what its end amounts to.
    """
    if not (home.path / "initrd").exists():
        return
    try:
        async with qmp.talk(home.qmp, timeout_seconds=_ANSWER_SECONDS) as monitor:
            await monitor.execute("query-status")
    except OSError as error:
        raise _failure(home) from error
    finally:
        _drop_boot_files(home)


def _drop_boot_files(home: Home) -> None:
    """What QEMU has read it keeps open."""
    for name in ("kernel", "initrd"):
        (home.path / name).unlink(missing_ok=True)


async def _run(spec: MachineSpec, home: Home, *, confinement: Confinement, enter: tuple[str, ...], lock: int) -> None:
    with _opened(spec, home) as (files, inherited, errors):
        disk_bytes = sum(virtual_size(disk) for disk in spec.disks)
        try:
            if confinement.root:
                let_open(spec)
            process = await asyncio.create_subprocess_exec(
                *enter,
                *confinement.words(spec, disk_bytes),
                *command(spec, files),
                cwd=home.path,
                env=_ENVIRONMENT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(lock, *inherited),
                start_new_session=True,
            )
        except OSError as error:
            raise _os_failure(error) from error
        code = await process.wait()
    if code != 0:
        raise _failure(home)


def _take_lock(stack: ExitStack, home: Home) -> int | None:
    try:
        home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _os_failure(error) from error
    stack.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return lock


def _unpack(spec: MachineSpec, home: Home) -> None:
    """Check the image and lay out what was checked, readable for whatever user QEMU is."""
    image = open_image(spec.image, spec.image_digest)
    try:
        for name, data in (("kernel", image.kernel), ("initrd", image.initrd)):
            path = home.path / name
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            path.chmod(0o444)
    except OSError as error:
        raise _os_failure(error) from error


@contextmanager
def _opened(spec: MachineSpec, home: Home) -> Iterator[tuple[Files, tuple[int, ...], int]]:
    """Everything that QEMU touches, open: its files, all descriptors that it inherits, and its error output."""
    with ExitStack() as stack:

        def keep(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        try:
            home.report.unlink(missing_ok=True)
            os.mkfifo(home.report, 0o600)
            # The reading end is only held: with it the kernel keeps the report as long as QEMU lives.
            reading = keep(os.open(home.report, os.O_RDONLY | os.O_NONBLOCK))
            files = Files(
                kernel=keep(os.open(home.path / "kernel", os.O_RDONLY)),
                initrd=keep(os.open(home.path / "initrd", os.O_RDONLY)),
                qmp=keep(_listen(home.qmp)),
                console=keep(_listen(home.console)),
                report=keep(os.open(home.report, os.O_WRONLY | os.O_NONBLOCK)),
                log=keep(os.open(home.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)),
                disks=tuple(keep(os.open(disk, os.O_RDWR)) for disk in spec.disks),
                seed=keep(os.open(spec.seed, os.O_RDONLY)) if spec.seed else None,
            )
            errors = keep(os.open(home.errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600))
        except OSError as error:
            raise _os_failure(error) from error
        own = (files.kernel, files.initrd, files.qmp, files.console, files.report, files.log, *files.disks)
        yield files, (*own, reading, *([files.seed] if files.seed is not None else [])), errors


def _listen(path: Path) -> int:
    """A listening socket at ``path``, through its directory's descriptor: such a name may be at most 107 bytes."""
    path.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(f"/proc/self/fd/{directory}/{path.name}")
            listening.listen(1)
            return listening.detach()
    finally:
        os.close(directory)


def _failure(home: Home) -> DriverError:
    said = tail(home.errors, 2048)
    for phrases, reason, message in _REASONS:
        if all(phrase in said for phrase in phrases):
            return DriverError(reason, message, internal=said)
    return DriverError("GuestStartFailed", "QEMU ended before the guest ran", internal=said)


def _os_failure(error: OSError) -> DriverError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DriverError("DiskFull", "the host's disk is full", internal=str(error))
    return DriverError("GuestStartFailed", "what the guest needs cannot be opened", internal=str(error))
