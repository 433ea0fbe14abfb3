"""What a cache of content promises, on the fake and on this machine's disk."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError, Invalid
from bessemer.drivers.fetch.fake import FakeContent
from bessemer.drivers.fetch.protocol import Content, Source
from bessemer.drivers.fetch.real import HostContent


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def source(data: bytes, *, opened: list[int] | None = None, cut_at: int | None = None) -> Source:
    """A source of the bytes; ``cut_at`` breaks it off there, ``opened`` notes the offsets asked for."""

    async def stream(offset: int) -> AsyncGenerator[bytes, None]:
        if opened is not None:
            opened.append(offset)
        end = len(data) if cut_at is None else cut_at
        for start in range(offset, end, 1000):
            yield data[start : min(start + 1000, end)]
        if cut_at is not None:
            raise ConnectionResetError("cut")

    return stream


@pytest.fixture(params=["fake", "real"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Content:
    """A cache of a fake host, and one on this disk."""
    return FakeContent(FakeClock(), reads=True) if request.param == "fake" else HostContent(tmp_path / "content")


def damage(content: Content, path: Path, digest: str) -> None:
    if isinstance(content, FakeContent):
        content.corrupt(digest)
        return
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)


async def test_what_was_fetched_is_found(content: Content) -> None:
    digest = digest_of(b"steel")
    assert await content.find(digest) is None
    path = await content.ensure(digest, [source(b"steel")])
    assert await content.find(digest) == path
    assert await content.verify(digest) == path


async def test_what_is_here_is_not_fetched_again(content: Content) -> None:
    opened: list[int] = []
    digest = digest_of(b"steel")
    for _ in range(2):
        await content.ensure(digest, [source(b"steel", opened=opened)])
    assert opened == [0]


async def test_something_else_is_refused(content: Content) -> None:
    digest = digest_of(b"steel")
    with pytest.raises(DriverError) as refusal:
        await content.ensure(digest, [source(b"slag")])
    assert refusal.value.reason == "DigestMismatch"
    assert await content.find(digest) is None
    await content.ensure(digest, [source(b"steel")])


async def test_a_silent_source_is_passed_over(content: Content) -> None:
    digest = digest_of(b"steel" * 1000)
    await content.ensure(digest, [source(b"", cut_at=0), source(b"steel" * 1000)])
    assert await content.find(digest) is not None


@pytest.mark.parametrize("sources", [[], [source(b"steel", cut_at=2)]])
async def test_without_a_source_it_is_not_fetched(content: Content, sources: list[Source]) -> None:
    with pytest.raises(DriverError) as refusal:
        await content.ensure(digest_of(b"steel"), sources)
    assert refusal.value.reason == "FetchFailed"


async def test_a_changed_file_is_found_and_fetched_anew(content: Content) -> None:
    digest = digest_of(b"steel rail")
    path = await content.ensure(digest, [source(b"steel rail")])
    damage(content, path, digest)
    with pytest.raises(DriverError) as refusal:
        await content.verify(digest)
    assert refusal.value.reason == "DigestMismatch"
    assert await content.find(digest) is None
    await content.ensure(digest, [source(b"steel rail")])
    await content.verify(digest)


async def test_what_is_not_here_cannot_be_verified(content: Content) -> None:
    with pytest.raises(DriverError) as refusal:
        await content.verify(digest_of(b"nothing"))
    assert refusal.value.reason == "ContentMissing"


async def test_the_least_used_go_first_and_the_pinned_stay(content: Content) -> None:
    data = [bytes([letter]) * 100 for letter in b"abcd"]
    digests = [digest_of(item) for item in data]
    for item, digest in zip(data, digests, strict=True):
        await content.ensure(digest, [source(item)])
    await content.ensure(digests[0], [])
    order = [item.digest for item in await content.stored()]
    if isinstance(content, HostContent):
        assert order == [*digests[1:], digests[0]]
    assert await content.evict(250, pinned=[order[0]]) == (order[1], order[2])
    assert {item.digest for item in await content.stored()} == {order[0], order[3]}
    assert await content.evict(0, pinned=[order[0]]) == (order[3],)


async def test_progress_is_told(content: Content) -> None:
    told: list[int] = []
    digest = digest_of(b"x" * 5_000)
    await content.ensure(digest, [source(b"x" * 5_000)], progress=told.append)
    await content.ensure(digest, [], progress=told.append)
    assert told[-2:] == [5_000, 5_000]


@pytest.mark.parametrize("digest", ["", "sha256:abc", "../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "a" * 32])
async def test_a_digest_is_never_a_path(content: Content, digest: str) -> None:
    for act in (content.find, content.verify):
        with pytest.raises(Invalid, match="not a digest"):
            await act(digest)
    with pytest.raises(Invalid, match="not a digest"):
        await content.ensure(digest, [source(b"x")])
