"""The weaker class: an agent that is an ordinary user, behind a user namespace, without control groups."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[3] / "src" / "bessemer"
NOBODY = 65_534

AGENT = """
import asyncio, os, sys
from pathlib import Path
from bessemer.drivers.process.protocol import Confined
from bessemer.drivers.process.real import HostProcesses

HOG = '''
import os, socket
print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()), os.path.exists('/root'))
print([line for line in open('/proc/self/status') if line.startswith(('CapEff', 'Seccomp:'))])
count = 0
try:
    while count < 100:
        if os.fork() == 0:
            import signal
            signal.pause()
        count += 1
except OSError as error:
    print(count, error.errno)
try:
    x = bytearray(512 << 20)
except MemoryError:
    print('no memory')
open('/tmp/own', 'w').close()
'''

async def until(ask):
    while not (found := await ask()):
        await asyncio.sleep(0.01)
    return found

async def main():
    processes = HostProcesses(Path(sys.argv[1]))
    print(await processes.isolation())
    binds = ((Path('/usr/bin'), '/usr/bin'),)
    hog = Confined('hog', ('/usr/bin/python3', '-I', '-S', '-c', HOG), 1000, 64 << 20, binds_ro=binds, pids_max=20)
    await processes.start(hog)
    print(await until(lambda: processes.ended('hog')))
    print(b''.join([chunk async for chunk in processes.log('hog')]).decode())
    confined = Confined('a', ('/usr/bin/sleep', '600'), 1000, 64 << 20, binds_ro=binds)
    first = await processes.start(confined)
    again = HostProcesses(Path(sys.argv[1]))
    print(first == await again.find('a') == (await again.running())[0], (await again.stats('a')).pids >= 2)
    await again.kill('a')
    print(await processes.find('a'), (await processes.ended('a')).reason)
    for uid in ('a', 'hog'):
        await processes.remove(uid)
    print(os.listdir(sys.argv[1]))

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """The drivers and a state folder where an ordinary user can reach them: the checkout may lie in a 0700 home."""
    path = Path(tempfile.mkdtemp(prefix="bsm-"))
    for room in ("core", "drivers"):
        shutil.copytree(SRC / room, path / "src" / "bessemer" / room)
    shutil.copy(SRC / "__init__.py", path / "src" / "bessemer")
    (path / "state").mkdir()
    if os.geteuid() == 0:
        path.chmod(0o755)
        os.chown(path / "state", NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.mark.real
async def test_an_ordinary_user_confines_too(folder: Path) -> None:
    drop = ("/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    agent = await asyncio.create_subprocess_exec(
        *(drop if os.geteuid() == 0 else ()),
        "/usr/bin/python3",
        "-B",
        "-W",
        "error",
        "-c",
        AGENT,
        str(folder / "state"),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder / "src")},
        cwd="/",
    )
    said, _ = await agent.communicate()
    assert agent.returncode == 0
    lines = said.decode().splitlines()
    assert lines[0] == "weak"
    assert "'Exited'" in lines[1]
    assert lines[2].strip() == "[1, 2] False"
    assert lines[3] == "['CapEff:\\t0000000000000000\\n', 'Seccomp:\\t2\\n']"
    # Python's own process is one of the twenty, and so is bwrap's first.
    count, errno = lines[4].split()
    assert 15 <= int(count) <= 20
    assert errno == "11"
    assert lines[5:] == ["no memory", "", "True True", "None Killed", "[]"]
