"""One contract for the fake builder and the real one, which builds from the distribution's packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.guest import packages
from bessemer.drivers.guest.fake import FakeGuest
from bessemer.drivers.guest.image import digest_of, open_image
from bessemer.drivers.guest.protocol import Guest, parse_meta, seed_files
from bessemer.drivers.guest.real import DebianGuest
from tests.drivers.micro_guest import package_cache


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def guest(request: pytest.FixtureRequest) -> Guest:
    return FakeGuest() if request.param == "fake" else DebianGuest()


async def test_two_builds_are_equal_bit_for_bit(guest: Guest, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    first = await guest.build(
        tmp_path / "a", cache=package_cache(), progress=lambda what, part: seen.append((what, part))
    )
    second = await guest.build(tmp_path / "b", cache=package_cache(), progress=lambda _what, _part: None)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert first.digest == second.digest == digest_of(content)
    assert first.size_bytes == len(content)
    assert set(first.members) == {"kernel", "initrd"}
    assert first.kernel_version
    parts = [part for _, part in seen]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0


@pytest.mark.real
async def test_what_is_built_can_be_opened(tmp_path: Path) -> None:
    built = await DebianGuest().build(tmp_path / "image", cache=package_cache(), progress=lambda _what, _part: None)
    opened = open_image(built.path, built.digest)
    assert built.members == {"kernel": digest_of(opened.kernel), "initrd": digest_of(opened.initrd)}
    assert opened.kernel_version == built.kernel_version
    assert opened.initrd.startswith(b"070701")


@pytest.mark.real
async def test_a_package_that_does_not_exist_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unchanged(_self: packages.Packages) -> None:
        """The index is not fetched anew."""

    monkeypatch.setattr(packages.Packages, "_refresh", unchanged)
    with pytest.raises(DriverError) as caught:
        await packages.Packages(tmp_path).download("bessemer-no-such-package")
    assert caught.value.reason == "PackagesUnavailable"


@pytest.mark.real
async def test_a_package_that_lies_in_the_current_directory_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await packages.Packages(package_cache()).download("busybox-static")
    monkeypatch.chdir(there.path.parent)
    assert (await packages.Packages(tmp_path).download("busybox-static")).version == there.version


def test_a_seed_reads_back() -> None:
    files = seed_files(instance_id="i-1", hostname="vm-one", nonce="abc")
    assert parse_meta(files["meta-data"]) == {"instance-id": "i-1", "local-hostname": "vm-one", "bessemer-nonce": "abc"}


@pytest.mark.parametrize("word", ["", "a b", "$(reboot)", "a\nb: c", "ü", "-x", "a" * 200])
def test_a_seed_takes_plain_words_alone(word: str) -> None:
    with pytest.raises(ValueError, match="plain word"):
        seed_files(instance_id="i", hostname=word, nonce="n")
