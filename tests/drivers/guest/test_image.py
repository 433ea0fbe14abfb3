"""The image as content: packed the same each time, opened only if whole."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.guest.image import digest_of, open_image, pack

PACKED = pack(b"KERNEL", b"INITRD", kernel_version="6.1.0-1", packages={"b": "2", "a": "1"})


def test_equal_parts_give_equal_bytes() -> None:
    assert pack(b"KERNEL", b"INITRD", kernel_version="6.1.0-1", packages={"a": "1", "b": "2"}) == PACKED


def test_an_image_opens_by_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(PACKED)
    opened = open_image(path, digest_of(PACKED))
    assert (opened.kernel, opened.initrd, opened.kernel_version) == (b"KERNEL", b"INITRD", "6.1.0-1")


@pytest.mark.parametrize("content", [PACKED[:-1], PACKED[:700], b"", PACKED.replace(b"INITRD", b"INITRE")])
def test_a_byte_less_or_other_is_a_mismatch(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(DriverError) as caught:
        open_image(path, digest_of(PACKED))
    assert caught.value.reason == "DigestMismatch"


def test_what_is_no_image_is_refused_though_its_digest_is_right(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("kernel"))
    for content in (b"no tar at all", out.getvalue(), b"\0" * 10240):
        path = tmp_path / "image"
        path.write_bytes(content)
        with pytest.raises(DriverError) as caught:
            open_image(path, digest_of(content))
        assert caught.value.reason == "ImageInvalid"


def test_a_missing_file_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as caught:
        open_image(tmp_path / "none", digest_of(PACKED))
    assert caught.value.reason == "ImageInvalid"
