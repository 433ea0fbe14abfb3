"""What a start that failed amounts to, by what was said on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.drivers.qemu.launch import Home, _failure


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("unshare: unshare failed: No space left on device\n", "IsolationUnavailable"),
        ("unshare: write failed /proc/self/uid_map: Operation not permitted\n", "IsolationUnavailable"),
        ("qemu-system-x86_64: could not write: No space left on device\n", "DiskFull"),
        ("setsid: failed to execute qemu-system-x86_64: No such file or directory\n", "QemuMissing"),
        ("vfio 0000:43:00.0: failed to open /dev/vfio/9: No such file or directory\n", "PassthroughUnavailable"),
        ("vfio 0000:43:00.0: failed to open /dev/vfio/9: Device or resource busy\n", "GuestStartFailed"),
        ("qemu-system-x86_64: something else\n", "GuestStartFailed"),
    ],
)
def test_a_reason_for_what_was_said(tmp_path: Path, said: str, reason: str) -> None:
    """A kernel that gives no more namespaces says what a full disk says."""
    home = Home(tmp_path)
    home.errors.write_text(said)
    assert _failure(home).reason == reason
