"""What stands around a guest's QEMU."""

from __future__ import annotations

import resource
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

from bessemer.core.descriptors import obtainable, of_children
from bessemer.drivers.qemu.confine import Confinement, bound_files
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


HOLDS = "import os, sys; os.truncate(os.memfd_create('ram'), 256 << 20); print('there', flush=True); sys.stdin.read()"


def test_memory_in_huge_pages_is_a_file_that_may_be_as_long_as_it() -> None:
    """And what is written afterwards stays within the disk all the same."""
    guest = MachineSpec(
        uid="u", name="vm", cpus=1, memory_bytes=256 << 20, image=Path("i"), image_digest="sha256:0", page_bytes=2 << 20
    )
    limits = list(takewhile(lambda word: word != "env", Confinement(root=False, namespaces=False).words(guest, 0)))
    process = subprocess.Popen(
        [*limits, sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        bound_files(process.pid, 1 << 20)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        assert soft == hard == (1 << 20) + (1 << 14) + (64 << 20)
        process.communicate()
