"""What stands around a guest's QEMU."""

from __future__ import annotations

import subprocess
from itertools import takewhile
from pathlib import Path

from bessemer.core.descriptors import obtainable, of_children
from bessemer.drivers.qemu.confine import Confinement
from bessemer.drivers.qemu.protocol import MachineSpec

SHOW = "ulimit -Sn; ulimit -Hn"


def test_a_guest_may_have_the_ordinary_number_of_files_open() -> None:
    """However many its agent took for itself."""
    most = obtainable()
    raised = ["prlimit", f"--nofile={most}:{most}"]
    spec = MachineSpec(
        uid="uid", name="vm", cpus=1, memory_bytes=64 << 20, image=Path("image"), image_digest="sha256:00"
    )
    words = Confinement(root=False, namespaces=False).words(spec, 1 << 20)
    limits = list(takewhile(lambda word: word != "env", words))
    said = subprocess.run([*raised, *limits, "sh", "-c", SHOW], capture_output=True, check=True, timeout=60)
    assert said.stdout.split() == [b"%d" % of_children(), b"%d" % most]
    assert of_children() <= 1_024
