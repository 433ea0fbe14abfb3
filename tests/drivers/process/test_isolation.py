"""What a hostile process can reach behind the walls, on this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError, Invalid
from bessemer.drivers.process import procfs, shim
from bessemer.drivers.process.protocol import Confined, End, Isolation
from bessemer.drivers.process.real import HostProcesses
from bessemer.drivers.process.users import FIRST_USER
from bessemer.drivers.process.walls import Walls
from tests.drivers.process.conftest import RealWorld
from tests.drivers.process.test_contract import end_of, log_of

pytestmark = pytest.mark.real

PREFIX = Path(sys.base_prefix)


@pytest.fixture(autouse=True)
async def strong(host: RealWorld) -> None:
    """These walls need root and control groups; a host without says that it is weak, which has tests of its own."""
    if await host.processes.isolation() is not Isolation.STRONG:
        pytest.skip("own users and limits need root and control groups")


async def hostile(host: RealWorld, program: str, *, memory_bytes: int = 96 << 20, pids_max: int = 32) -> bytes:
    """Run a Python program behind the walls to its end, and return what it printed."""
    await host.processes.start(
        Confined(
            "evil",
            (
                "/opt/python/bin/python3",
                "-I",
                "-S",
                "-c",
                f"import os, socket, ctypes, errno\n{program}\nprint('over')",
            ),
            cores_milli=1000,
            memory_bytes=memory_bytes,
            pids_max=pids_max,
            binds_ro=((PREFIX, "/opt/python"),),
        )
    )
    assert (await end_of(host.processes, "evil")).code is not None
    text = b"".join([chunk async for chunk in host.processes.log("evil")])
    assert text.endswith(b"over\n"), text
    return text.removesuffix(b"over\n")


ATTEMPT = """
def attempt(name, act):
    try:
        print(name, 'done', act())
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"""


async def test_its_process_is_nobody(host: RealWorld) -> None:
    await host.waits("a")
    running = await host.processes.find("a")
    assert running is not None
    assert running.user >= FIRST_USER
    status = (Path("/proc") / str(running.pid) / "status").read_text()
    rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert rows["Uid"].split() == [str(running.user)] * 4
    assert rows["Gid"].split() == [str(running.user)] * 4
    assert rows["Groups"].strip() == ""
    assert {rows[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (rows["NoNewPrivs"], rows["Seccomp"]) == ("1", "2")
    for name in ("mnt", "pid", "ipc", "uts", "net"):
        assert os.readlink(f"/proc/{running.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")


async def test_it_sees_no_file_but_its_own(host: RealWorld) -> None:
    secret = host.state / "agent.key"
    secret.write_text("secret")
    program = f"""
attempt('root', lambda: os.listdir('/root'))
attempt('state', lambda: open({str(secret)!r}).read())
attempt('home', lambda: os.listdir('/home'))
attempt('shadow', lambda: open('/etc/shadow').read())
attempt('sys', lambda: os.listdir('/sys'))
attempt('through-init', lambda: os.listdir('/proc/1/root/root'))
attempt('through-parent', lambda: os.listdir('/proc/self/cwd/../root'))
attempt('write-library', lambda: open('/usr/lib/x', 'w'))
attempt('write-root', lambda: open('/x', 'w'))
attempt('write-python', lambda: open('/opt/python/x', 'w'))
attempt('write-dev', lambda: open('/dev/x', 'w'))
attempt('own', lambda: open('/tmp/x', 'w').write('x'))
print(sorted(os.listdir('/')), sorted(os.listdir('/etc')), sorted(os.listdir('/usr/bin')))
"""
    lines = (await hostile(host, ATTEMPT + program)).decode().splitlines()
    outcome = dict(line.split(" ", 1) for line in lines[:-1])
    assert outcome.pop("own") == "done 1"
    assert set(outcome.values()) <= {"ENOENT", "EACCES", "EROFS"}
    assert lines[-1].endswith(" ['ld.so.cache'] ['prlimit', 'setpriv']")
    assert "'root'" not in lines[-1]
    assert "'sys'" not in lines[-1]


async def test_it_sees_no_other_process(host: RealWorld) -> None:
    await host.waits("neighbour")
    program = """
print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))
attempt('kill-everyone', lambda: os.kill(-1, 9))
attempt('environment', lambda: open('/proc/1/environ').read())
attempt('memory', lambda: open('/proc/1/mem').read())
"""
    first, *rest = (await hostile(host, ATTEMPT + program)).decode().splitlines()
    assert first == "[1, 2]"
    # Within its namespace there is only bwrap's init, which belongs to somebody else.
    assert rest == ["kill-everyone ESRCH", "environment EACCES", "memory EACCES"]
    assert await host.processes.find("neighbour") is not None


async def test_it_has_no_network(host: RealWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        name = f"bessemer-test-{uuid.uuid4().hex}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        program = f"""
attempt('loopback', lambda: socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 2))
attempt('outside', lambda: socket.create_connection(('192.0.2.1', 80), 2))
attempt('abstract', lambda: socket.socket(socket.AF_UNIX).connect('\\0{name}'))
attempt('hypervisor', lambda: socket.socket(40, socket.SOCK_STREAM))
attempt('packets', lambda: socket.socket(17, socket.SOCK_RAW))
attempt('crypto', lambda: socket.socket(38, socket.SOCK_SEQPACKET))
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
print([name for _, name in socket.if_nameindex()])
"""
        lines = (await hostile(host, ATTEMPT + program)).decode().splitlines()
    assert lines == [
        "loopback ECONNREFUSED",
        "outside ENETUNREACH",
        "abstract ECONNREFUSED",
        "hypervisor EAFNOSUPPORT",
        "packets EAFNOSUPPORT",
        "crypto EAFNOSUPPORT",
        "raw EPERM",
        "['lo']",
    ]


async def test_it_cannot_leave_or_nest(host: RealWorld) -> None:
    program = """
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *words):
    print(name, 'done' if getattr(libc, name)(*words) >= 0 else errno.errorcode[ctypes.get_errno()])
call('unshare', 0x10000000)
call('setns', os.open('/proc/self/ns/net', 0), 0)
call('mount', b'none', b'/tmp', b'tmpfs', 0, None)
call('umount2', b'/tmp', 2)
call('chroot', b'/tmp')
call('ptrace', 0, 0, 0, 0)
call('setuid', 0)
call('sethostname', b'x', 1)
call('syscall', 248, b'user', b'x', b'y', 1, -1)
call('syscall', 425, 1, 0)
call('syscall', 56, 0x10000000 | 17, 0, 0, 0, 0)
call('syscall', 435, 0, 0)
call('syscall', 0x40000000 | 39)
"""
    lines = (await hostile(host, ATTEMPT + program)).decode().splitlines()
    assert [line.split()[1] for line in lines] == ["EPERM"] * 11 + ["ENOSYS"] * 2


async def test_it_inherits_no_descriptor(host: RealWorld) -> None:
    leak = os.open("/etc/shadow", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        text = await hostile(host, "print(sorted(os.listdir('/proc/self/fd')))")
    finally:
        os.close(leak)
    # Standard input, output and error, and the listing itself.
    assert text == b"['0', '1', '2', '3']\n"


async def test_it_has_nothing_of_the_agents_environment(host: RealWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither it nor what starts it and stays beside it."""
    monkeypatch.setenv("BESSEMER_CANARY", "of-the-agent")
    await host.waits("u1")
    assert [pid for pid in procfs.pids() if b"BESSEMER_CANARY" in environment(pid)] == []
    program = "print(sorted(set(os.environ) - {'PATH', 'PWD', 'LANG', 'LC_CTYPE', 'BESSEMER_CONFINED'}))"
    assert await hostile(host, program) == b"[]\n"


def environment(pid: int) -> bytes:
    """What a process was started with; nothing of one that has just gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


async def test_a_fork_bomb_is_bounded(host: RealWorld) -> None:
    program = """
count = 0
try:
    while count < 1000:
        if os.fork() == 0:
            import signal
            signal.pause()
        count += 1
except OSError as error:
    print(count, errno.errorcode[error.errno])
"""
    count, name = (await hostile(host, program, pids_max=20)).decode().split()
    assert (int(count), name) == (19, "EAGAIN")


async def test_memory_in_files_counts_as_memory(host: RealWorld) -> None:
    await host.run("a", "while :; do cat /bin/* >>/tmp/x; done", memory_bytes=32 << 20)
    assert (await end_of(host.processes, "a")).reason is End.OUT_OF_MEMORY


async def cpu_of(host: RealWorld, uid: str) -> float:
    stats = await host.processes.stats(uid)
    assert stats is not None
    return stats.cpu_seconds


async def test_cores_are_bounded(host: RealWorld) -> None:
    confined = Confined(
        "a",
        ("/bin/sh", "-c", "while :; do :; done"),
        cores_milli=100,
        memory_bytes=32 << 20,
        binds_ro=((Path("/usr/bin"), "/bin"),),
    )
    await host.processes.start(confined)
    began = asyncio.get_running_loop().time()
    before, used = await cpu_of(host, "a"), 0.0
    while used < 0.1:
        used = await cpu_of(host, "a") - before
        await asyncio.sleep(0.01)
    # A tenth of a core: 0.1 s of it take 1 s, less what one period of 0.1 s may run ahead.
    assert asyncio.get_running_loop().time() - began > 0.7


async def test_what_it_prints_fills_no_disk(host: RealWorld) -> None:
    await host.run("a", "while :; do echo nonsense of sixty-four bytes that is printed for ever and ever; done")
    log = host.state / "confined" / "a"
    seen: set[int] = set()
    async with asyncio.timeout(60):
        while len(seen) < 2:
            seen |= {file.stat().st_ino for file in log.glob("log.1")}
            await asyncio.sleep(0.05)
    assert sum(file.stat().st_size for file in log.iterdir()) <= shim.LOG_BYTES_MAX + (1 << 16)
    assert len(await log_of(host.processes, "a", holding=b"nonsense")) <= shim.LOG_BYTES_MAX + (1 << 16)


async def test_it_outlives_the_agent(host: RealWorld) -> None:
    """An agent is another process here: it starts one, and is killed."""
    program = f"""
import asyncio, os, sys
from pathlib import Path
from bessemer.drivers.process.protocol import Confined
from bessemer.drivers.process.real import HostProcesses
async def main():
    processes = HostProcesses(Path({str(host.state / "confined")!r}), users=Path({str(host.state / "users")!r}))
    words = ("/bin/sh", "-c", "echo started; exec sleep 600")
    binds = ((Path("/usr/bin"), "/bin"),)
    print((await processes.start(Confined("a", words, 500, 32 << 20, binds_ro=binds))).pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    root = Path(__file__).parents[3] / "src"
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    )
    said, _ = await agent.communicate()
    running = await host.processes.find("a")
    assert running is not None
    assert running.pid == int(said)
    assert procfs.entry(running.pid) is not None
    assert await log_of(host.processes, "a", holding=b"started") == b"started\n"
    await host.processes.kill("a")
    assert procfs.entry(running.pid) is None


async def test_killed_behind_our_back_it_crashed(host: RealWorld) -> None:
    await host.waits("a")
    running = await host.processes.find("a")
    assert running is not None
    os.kill(running.pid, 9)
    end = await end_of(host.processes, "a")
    assert (end.reason, end.code) == (End.CRASHED, 137)


async def test_without_its_shim_the_end_is_unseen(host: RealWorld) -> None:
    await host.waits("a")
    running = await host.processes.find("a")
    assert running is not None
    for pid in procfs.pids():
        if shim.__file__ in procfs.arguments(pid) and str(host.state / "confined" / "a") in procfs.arguments(pid):
            os.kill(pid, 9)
    assert await host.processes.find("a") == running
    os.kill(running.pid, 9)
    end = await end_of(host.processes, "a")
    assert (end.reason, end.code) == (End.CRASHED, None)


async def test_what_cannot_start_says_so(host: RealWorld) -> None:
    missing = Confined("a", ("/bin/true",), 100, 32 << 20, binds_ro=((Path("/no/such/file"), "/x"),))
    with pytest.raises(DriverError, match="cannot be started") as refusal:
        await host.processes.start(missing)
    assert refusal.value.reason == "ProcessFailed"
    assert "/no/such/file" in refusal.value.internal
    await host.processes.start(Confined("b", ("/no/such/program",), 100, 32 << 20))
    assert (await end_of(host.processes, "b")).reason is End.CRASHED


async def test_root_is_never_its_user(host: RealWorld) -> None:
    with pytest.raises(Invalid, match="root"):
        await host.processes.start(Confined("a", ("/bin/true",), 100, 32 << 20, user=0))


async def test_a_folder_of_its_own_can_be_written(host: RealWorld) -> None:
    folder = host.state / "shared"
    confined = Confined(
        "a",
        ("/bin/sh", "-c", "echo hello >/data/x"),
        cores_milli=500,
        memory_bytes=32 << 20,
        binds_ro=((Path("/usr/bin"), "/bin"),),
        binds_rw=((folder, "/data"),),
    )
    await host.processes.start(confined)
    assert (await end_of(host.processes, "a")).reason is End.EXITED
    assert (folder / "x").read_text() == "hello\n"
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, (folder / "x").stat().st_uid)


async def test_two_state_folders_share_no_user(host: RealWorld) -> None:
    other = HostProcesses(host.state / "other", users=host.state / "users")
    confined = await host.waits("a")
    try:
        first, second = await host.processes.start(confined), await other.start(confined)
        assert first.user != second.user
        await other.kill("a")
        assert await host.processes.find("a") == first
    finally:
        await other.remove("a")


class Crash(BaseException):
    """The agent's end, at a point of our choice."""


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["_take_user", "_prepare", "_spawn", "remove", "end"])
async def test_an_agent_that_dies_while_starting_leaves_one_process(
    host: RealWorld, monkeypatch: pytest.MonkeyPatch, step: str, late: bool
) -> None:
    act = getattr(Walls, step)

    def crash(walls: Walls, *words: object, **named: object) -> None:
        if late:
            act(walls, *words, **named)
        raise Crash

    async def crash_later(walls: Walls, *words: object, **named: object) -> None:
        if late:
            await act(walls, *words, **named)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Walls, step, crash_later if asyncio.iscoroutinefunction(act) else crash)
        with pytest.raises(Crash):
            await (host.processes.remove("a") if step == "remove" else host.waits("a"))
    again = host.another()
    await host.waits("a")
    first = await again.find("a")
    assert first is not None
    async with asyncio.timeout(30):  # one that forks is two, until its child is another program
        while len([pid for pid in procfs.pids() if is_shim_of(host, pid)]) != 1:
            await asyncio.sleep(0.05)
    assert len(os.listdir(host.state / "users")) == 1
    await again.remove("a")
    assert [pid for pid in procfs.pids() if is_shim_of(host, pid)] == []
    assert (os.listdir(host.state / "users"), os.listdir(host.state / "confined")) == ([], [])


def is_shim_of(host: RealWorld, pid: int) -> bool:
    return {shim.__file__, str(host.state / "confined" / "a")} <= set(procfs.arguments(pid))
