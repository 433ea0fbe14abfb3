"""A process that starts one guest, to be killed in the middle: ``python -m tests.drivers.qemu.starter ROOT SPEC``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bessemer.drivers.qemu.confine import Confinement
from bessemer.drivers.qemu.protocol import MachineSpec
from bessemer.drivers.qemu.real import LocalQemu


def spec_words(spec: MachineSpec) -> list[str]:
    """The guest as words of a command line."""
    words = (spec.uid, spec.cpus, spec.memory_bytes, spec.image, spec.image_digest, spec.disks[0], spec.seed)
    return [str(word) for word in words]


def main() -> None:
    root, uid, cpus, memory, image, digest, disk, seed = sys.argv[1:]
    spec = MachineSpec(
        uid=uid,
        name="vm",
        cpus=int(cpus),
        memory_bytes=int(memory),
        image=Path(image),
        image_digest=digest,
        disks=(Path(disk),),
        seed=Path(seed),
    )
    sys.stdout.write("starting\n")
    sys.stdout.flush()
    asyncio.run(LocalQemu(Path(root), confinement=Confinement.here(namespaces=True), cgroups=None).start(spec))
    sys.stdin.read()


if __name__ == "__main__":
    main()
