"""PCI devices as the kernel shows and binds them below ``/sys``: Linux, ``Documentation/ABI/testing/sysfs-bus-pci``."""

from __future__ import annotations

import re
import time
from pathlib import Path

from bessemer.core.errors import DriverError

VFIO = "vfio-pci"
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
BRIDGE = "0x0604"
_SETTLE_SECONDS = 10.0


class Pci:
    """The bus, below ``sys``; the files that programs open for it are below ``dev``."""

    def __init__(self, sys: Path = Path("/sys"), dev: Path = Path("/dev")) -> None:
        self._bus = sys / "bus/pci"
        self._dev = dev

    def require_vfio(self) -> None:
        if not (self._bus / "drivers" / VFIO).is_dir():
            raise DriverError("PassthroughUnavailable", f"the driver {VFIO} is not loaded on this host")

    def there(self, address: str) -> bool:
        return _ADDRESS.fullmatch(address) is not None and self._at(address).exists()

    def driver(self, address: str) -> str:
        """The driver that has it; "" for none."""
        link = self._at(address) / "driver"
        return link.resolve().name if link.exists() else ""

    def sort(self, address: str) -> str:
        """Its class code, as 0x030200."""
        return (self._at(address) / "class").read_text().strip()

    def node(self, address: str) -> Path:
        """The device file of its IOMMU group. Raises DriverError ``IommuMissing``."""
        link = self._at(address) / "iommu_group"
        if not link.exists():
            raise DriverError(
                "IommuMissing", f"{address} is in no IOMMU group: the host's IOMMU is off, or it has none"
            )
        return self._dev / "vfio" / link.resolve().name

    def beside(self, address: str) -> list[str]:
        """The addresses of its IOMMU group, its own as well."""
        return sorted(entry.name for entry in (self._at(address) / "iommu_group" / "devices").iterdir())

    def bind(self, address: str) -> None:
        """Let ``vfio-pci`` have it. Raises DriverError ``DeviceBusy``."""
        if self.driver(address) != VFIO:
            self._say(self._at(address) / "driver_override", VFIO)
            self._unbind(address)
            self._say(self._bus / "drivers_probe", address)
        if self.driver(address) != VFIO:
            raise DriverError("DeviceBusy", f"{address} did not go to {VFIO} (its driver is {self.driver(address)!r})")

    def release(self, address: str, *, probe: bool) -> None:
        """Take it from ``vfio-pci``; with ``probe`` the kernel looks for its own driver at once."""
        if not self.there(address):
            return
        self._say(self._at(address) / "driver_override", "\n")
        if self.driver(address) == VFIO:
            self._unbind(address)
        if probe and not self.driver(address):
            self._say(self._bus / "drivers_probe", address)

    def functions(self, address: str) -> list[str]:
        """Its virtual functions that are there, by number."""
        links = sorted(self._at(address).glob("virtfn*"), key=lambda link: int(link.name.removeprefix("virtfn")))
        return [link.resolve().name for link in links]

    def parent(self, address: str) -> str | None:
        """The device of which it is a virtual function; None for one that is none."""
        link = self._at(address) / "physfn"
        return link.resolve().name if link.exists() else None

    def _at(self, address: str) -> Path:
        return self._bus / "devices" / address

    def _unbind(self, address: str) -> None:
        if self.driver(address):
            self._say(self._at(address) / "driver" / "unbind", address)
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self.driver(address) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _say(self, file: Path, words: str) -> None:
        try:
            file.write_text(words)
        except OSError as error:
            raise DriverError(
                "DeviceBusy", f"the kernel refused {file.name} of a device", internal=str(error)
            ) from error


def autoprobe(pci: Pci, address: str) -> str:
    """Whether the host's drivers take a card's functions: ``1``, ``0``; "" where the kernel does not say."""
    try:
        return (pci._at(address) / "sriov_drivers_autoprobe").read_text().strip()
    except OSError:
        return ""


def make(pci: Pci, address: str) -> None:
    """All virtual functions that a card can have; the host's drivers take none."""
    total = pci._at(address) / "sriov_totalvfs"
    if not total.exists():
        raise DriverError("FunctionsMissing", f"{address} has no virtual functions")
    pci._say(pci._at(address) / "sriov_drivers_autoprobe", "0")
    pci._say(pci._at(address) / "sriov_numvfs", total.read_text().strip())


def unmake(pci: Pci, address: str, *, before: str = "") -> None:
    """None of them; and `autoprobe` as it was ``before`` they were made, where that is known."""
    if pci.functions(address):
        pci._say(pci._at(address) / "sriov_numvfs", "0")
    if before and autoprobe(pci, address) not in ("", before):
        pci._say(pci._at(address) / "sriov_drivers_autoprobe", before)
