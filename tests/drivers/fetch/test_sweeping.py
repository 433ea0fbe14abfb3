"""What nobody names any more goes from a folder of content, after a while; what is in use never does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch import sweeping
from bessemer.drivers.fetch.intake import Intake
from bessemer.drivers.fetch.protocol import Held, Swept
from bessemer.drivers.fetch.real import HostContent
from tests.drivers.fetch.test_contract import digest_of, source

ONE, TWO = b"one" * 1000, b"two" * 1000
DAY = 86_400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "content"


def age(root: Path, *, seconds: float) -> None:
    """Let everything there be as old; the time of a name cannot be set, so that it is said to be as old, too."""
    then = time.time() - seconds
    for file in root.iterdir():
        os.utime(file, (then, then))


@pytest.fixture(autouse=True)
def names_have_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_changed", lambda file: 0.0)


def swept(root: Path, *named: bytes, grace: float = DAY) -> Swept:
    return HostContent(root).sweep([digest_of(data) for data in named], began=time.time(), grace=grace)


def suffixes(root: Path) -> list[str]:
    return sorted(file.suffix for file in root.iterdir())


async def both(root: Path) -> HostContent:
    content = HostContent(root)
    for data in (ONE, TWO):
        await content.ensure(digest_of(data), [source(data)])
    return content


async def test_what_nobody_names_goes_after_the_grace_and_not_before(root: Path) -> None:
    content = await both(root)
    assert swept(root, ONE) == Swept()
    assert content.held() == Held(used_bytes=len(ONE), idle_bytes=len(TWO))
    age(root, seconds=DAY / 2)
    assert swept(root, ONE) == Swept()
    age(root, seconds=DAY + 1)
    assert swept(root, ONE) == Swept(digests=(digest_of(TWO),), freed_bytes=len(TWO))
    assert await content.find(digest_of(ONE)) is not None
    assert await content.find(digest_of(TWO)) is None
    assert suffixes(root) == ["", ".seen"]


async def test_what_is_named_again_begins_anew(root: Path) -> None:
    await both(root)
    swept(root, ONE)
    age(root, seconds=DAY + 1)
    assert swept(root, ONE, TWO) == Swept()
    age(root, seconds=DAY + 1)
    assert swept(root, ONE) == Swept()  # it is idle since now


async def test_what_is_asked_for_stays(root: Path) -> None:
    content = await both(root)
    swept(root)
    for asked in (content.find, content.verify, lambda digest: content.ensure(digest, [])):
        age(root, seconds=DAY + 1)
        assert await asked(digest_of(ONE)) is not None
        assert digest_of(ONE) not in swept(root).digests
    assert await content.find(digest_of(TWO)) is None


async def test_what_is_asked_for_while_its_name_is_away_is_given_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = await both(root)
    swept(root)
    age(root, seconds=DAY + 1)
    rename = Path.rename

    def raced(self: Path, target: Path) -> Path:
        if target.suffix == ".gone":
            self.with_suffix(".seen").touch()  # as `find` does, before it looks for the name
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", raced)
    assert swept(root) == Swept()
    monkeypatch.undo()
    assert (await content.verify(digest_of(ONE))).read_bytes() == ONE


async def test_who_comes_too_late_fetches_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = await both(root)
    is_file = Path.is_file
    lost: list[Path] = []

    def lose(self: Path) -> bool:
        """There when it is looked for first, gone right after."""
        there = is_file(self)
        if there and not self.suffix and not lost:
            lost.append(self)
            self.unlink()
        return there

    monkeypatch.setattr(Path, "is_file", lose)
    path = await content.ensure(digest_of(ONE), [source(ONE)])
    assert lost
    assert path.read_bytes() == ONE


class Killed(BaseException):
    """The process ends at this call."""


async def test_a_sweep_that_is_killed_at_any_call_leaves_nothing_and_loses_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def counted(name: str, limit: int) -> Callable[..., Any]:
        real = getattr(Path, name)

        def call(self: Path, *args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            if self.parent == root and calls >= limit:
                raise Killed
            calls += self.parent == root
            return real(self, *args, **kwargs)

        return call

    whole = False
    limit = 0
    while not whole:
        content = await both(root)
        swept(root, ONE)
        age(root, seconds=DAY + 1)
        calls = 0
        with monkeypatch.context() as patch:
            for name in ("rename", "unlink", "touch"):
                patch.setattr(Path, name, counted(name, limit))
            try:
                swept(root, ONE)
                whole = True
            except Killed:
                limit += 1
        age(root, seconds=DAY + 1)
        swept(root, ONE)
        assert (await content.verify(digest_of(ONE))).read_bytes() == ONE
        assert suffixes(root) == ["", ".seen"]
    assert limit >= 4


async def test_what_was_killed_on_its_way_out_and_is_named_now_comes_back(root: Path) -> None:
    content = await both(root)
    path = root / digest_of(ONE).removeprefix("sha256:")
    path.rename(path.with_suffix(".gone"))
    assert swept(root, ONE, TWO) == Swept()
    assert (await content.verify(digest_of(ONE))).read_bytes() == ONE


async def test_parts_that_nobody_goes_on_with_go_and_those_at_work_stay(root: Path) -> None:
    content = HostContent(root)
    with pytest.raises(DriverError):
        await content.ensure(digest_of(ONE), [source(ONE, cut_at=1000)])
    busy = Intake(root / f"{digest_of(TWO).removeprefix('sha256:')}.part")
    busy.open(resume=True)
    busy.write(TWO)
    assert content.held() == Held(coming_bytes=1000 + len(TWO))
    assert swept(root) == Swept()
    age(root, seconds=DAY + 1)
    assert swept(root) == Swept(parts=1, freed_bytes=1000)
    busy.close()
    assert swept(root).parts == 1


async def test_what_is_no_content_is_left_alone(root: Path) -> None:
    await both(root)
    (root / "installation.id").write_text("this one's")
    (root / "notes").write_text("somebody's")
    swept(root)
    age(root, seconds=DAY + 1)
    assert len(swept(root).digests) == 2
    assert sorted(os.listdir(root)) == ["installation.id", "notes"]
