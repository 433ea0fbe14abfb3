"""A PCI bus drawn on a folder, that answers writes as Linux does: overrides, binding, probing, virtual functions."""

from __future__ import annotations

from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.passthrough.sysfs import Pci

GPU, AUDIO, NIC, DISK, BRIDGE = (
    "0000:41:00.0",
    "0000:41:00.1",
    "0000:42:00.0",
    "0000:43:00.0",
    "0000:40:00.0",
)
HOSTS = {GPU: "nouveau", AUDIO: "snd_hda_intel", NIC: "mlx5_core", DISK: "nvme", BRIDGE: "pcieport"}
"""Which driver of the host takes each when it is asked."""


class DrawnPci(Pci):
    """The bus below ``root``. ``stubborn`` devices go to no driver of guests. ``writes`` is what was written."""

    def __init__(self, root: Path, *, vfio: bool = True) -> None:
        super().__init__(root, root / "dev")
        self.root = root
        self.stubborn: set[str] = set()
        self.writes: list[tuple[str, str]] = []
        for driver in {*HOSTS.values(), *(["vfio-pci"] if vfio else [])}:
            (root / "bus/pci/drivers" / driver).mkdir(parents=True)
        for address, group, sort in (
            (GPU, "7", "0x030200"),
            (AUDIO, "7", "0x040300"),
            (BRIDGE, "8", "0x060400"),
            (NIC, "8", "0x020000"),
            (DISK, "9", "0x010802"),
        ):
            self.add(address, group=group, sort=sort)
            self._probe(address)
        (self._at(NIC) / "sriov_totalvfs").write_text("4\n")
        (self._at(NIC) / "sriov_drivers_autoprobe").write_text("1\n")

    def add(self, address: str, *, group: str, sort: str) -> None:
        at = self._at(address)
        at.mkdir(parents=True)
        (at / "class").write_text(f"{sort}\n")
        (at / "driver_override").write_text("(null)\n")
        members = self.root / "kernel/iommu_groups" / group / "devices"
        members.mkdir(parents=True, exist_ok=True)
        (at / "iommu_group").symlink_to(members.parent)
        (members / address).symlink_to(at)

    def drivers(self) -> dict[str, str]:
        return {entry.name: self.driver(entry.name) for entry in (self.root / "bus/pci/devices").iterdir()}

    def _say(self, file: Path, words: str) -> None:
        self.writes.append((str(file.relative_to(self.root)), words))
        if file.name == "unbind":
            (self._at(words) / "driver").unlink()
        elif file.name == "drivers_probe":
            self._probe(words)
        elif file.name == "sriov_numvfs":
            self._number(file.parent, int(words))
        else:
            file.write_text(words)

    def _probe(self, address: str) -> None:
        wanted = (self._at(address) / "driver_override").read_text().strip()
        driver = HOSTS.get(address, "mlx5_core") if wanted in ("", "(null)") else wanted
        if not (self._at(address) / "driver").exists() and address not in self.stubborn:
            (self._at(address) / "driver").symlink_to(self.root / "bus/pci/drivers" / driver)

    def _number(self, card: Path, count: int) -> None:
        made = self.functions(card.name)
        if made and count:
            raise DriverError("DeviceBusy", "the kernel changes no number of functions but to and from none")
        for number, function in enumerate(made):
            (card / f"virtfn{number}").unlink()
            at, group = self._at(function), (self._at(function) / "iommu_group").resolve()
            (group / "devices" / function).unlink()
            for link in at.iterdir():
                link.unlink()
            at.rmdir()
        for number in range(count):
            address = f"0000:42:10.{number}"
            self.add(address, group=str(20 + number), sort="0x020000")
            (self._at(address) / "physfn").symlink_to(card)
            (card / f"virtfn{number}").symlink_to(self._at(address))
            if (card / "sriov_drivers_autoprobe").read_text().strip() != "0":
                self._probe(address)
