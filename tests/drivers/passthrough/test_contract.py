"""One contract for handing devices over: on the fake, and on the real driver over a bus that answers as Linux does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bessemer.core import durable
from bessemer.core.errors import DriverError
from bessemer.drivers.passthrough.fake import FakePassthrough, FakePciWorld
from bessemer.drivers.passthrough.protocol import Passthrough, Wanted
from bessemer.drivers.passthrough.real import VfioPassthrough
from bessemer.drivers.passthrough.sysfs import autoprobe
from tests.drivers.passthrough.drawn import AUDIO, DISK, GPU, HOSTS, NIC, DrawnPci

DISK_WHOLE = Wanted("disk-0", "disk", DISK)
NIC_WHOLE = Wanted("nic-0", "nic", NIC)
GPU_WHOLE = (Wanted("gpu-0", "gpu", GPU), Wanted("audio-0", "audio", AUDIO))


def functions(count: int) -> Wanted:
    return Wanted("nic-0", "nic", NIC, functions=count)


@pytest.fixture
def pci(tmp_path: Path) -> DrawnPci:
    return DrawnPci(tmp_path / "sys")


@pytest.fixture(params=["fake", "real"])
def new(request: pytest.FixtureRequest, tmp_path: Path, pci: DrawnPci) -> Callable[[], Passthrough]:
    """The driver as each new agent has it."""
    if request.param == "fake":
        world = FakePciWorld()
        return lambda: FakePassthrough(world)
    return lambda: VfioPassthrough(tmp_path / "state", pci=pci)


async def refused(driver: Passthrough, uid: str, *wanted: Wanted) -> str:
    with pytest.raises(DriverError) as caught:
        await driver.hand(uid, wanted)
    return caught.value.reason


async def test_what_is_handed_over_is_one_uids_until_it_is_given_back(new: Callable[[], Passthrough]) -> None:
    driver = new()
    first = await driver.hand("a", (DISK_WHOLE,))
    assert [one.device for one in first] == ["disk-0"]
    assert await new().hand("a", (DISK_WHOLE,)) == first, "also for an agent that knows nothing"
    assert await refused(new(), "b", DISK_WHOLE) == "DeviceBusy"
    await driver.give_back("b")
    assert await driver.uids() == {"a"}
    await new().give_back("a")
    await new().give_back("a")
    assert await driver.uids() == frozenset()
    assert await driver.hand("b", (DISK_WHOLE,)) == first


async def test_functions_are_several_uids_and_the_card_then_nobodys(new: Callable[[], Passthrough]) -> None:
    driver = new()
    one, other = await driver.hand("a", (functions(3),)), await driver.hand("b", (functions(1),))
    assert [each.device for each in (*one, *other)] == ["nic-0"] * 4
    assert await refused(driver, "c", NIC_WHOLE) == "DeviceBusy"
    assert await new().hand("a", (functions(3),)) == one
    for uid in ("a", "b", "c"):
        await driver.give_back(uid)
    await driver.hand("c", (NIC_WHOLE,))
    assert await refused(driver, "a", functions(1)) == "DeviceBusy"


# --- what the host's kernel is told -----------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path, pci: DrawnPci) -> VfioPassthrough:
    return VfioPassthrough(tmp_path / "state", pci=pci)


async def test_the_whole_group_goes_to_vfio_and_comes_back(real: VfioPassthrough, pci: DrawnPci) -> None:
    handed = await real.hand("a", GPU_WHOLE)
    assert [dict(one.properties) for one in handed] == [
        {"driver": "vfio-pci", "host": GPU},
        {"driver": "vfio-pci", "host": AUDIO},
    ]
    assert {node for one in handed for node in one.nodes} == {pci.root / "dev/vfio/7"}
    assert pci.drivers() == {**HOSTS, GPU: "vfio-pci", AUDIO: "vfio-pci"}
    await real.give_back("a")
    assert pci.drivers() == HOSTS


async def test_what_shares_a_group_with_the_host_stays_with_the_host(real: VfioPassthrough, pci: DrawnPci) -> None:
    with pytest.raises(DriverError, match=rf"{AUDIO} of its IOMMU group is in use by the host \(snd_hda_intel\)"):
        await real.hand("a", GPU_WHOLE[:1])
    assert pci.drivers() == HOSTS, "nothing was taken"
    assert await real.hand("b", (NIC_WHOLE,)), "a bridge of the group is no trouble"
    (pci.root / "bus/pci/devices" / AUDIO / "driver").unlink()
    assert await real.hand("a", GPU_WHOLE[:1]), "nor is what no driver has"
    with pytest.raises(DriverError, match="another guest"):
        await real.hand("c", GPU_WHOLE[1:])


async def test_functions_are_made_once_kept_from_the_host_and_unmade(real: VfioPassthrough, pci: DrawnPci) -> None:
    await real.hand("a", (functions(1),))
    handed = await real.hand("b", (functions(2),))
    assert [one.properties["host"] for one in handed] == ["0000:42:10.1", "0000:42:10.2"]
    assert {a: d for a, d in pci.drivers().items() if a not in HOSTS} == {
        **{f"0000:42:10.{number}": "vfio-pci" for number in range(3)},
        "0000:42:10.3": "",
    }
    assert await refused(real, "c", functions(2)) == "FunctionsMissing"
    await real.give_back("c")
    await real.give_back("a")
    assert pci.functions(NIC), "somebody has some of them still"
    await real.give_back("b")
    assert (pci.functions(NIC), pci.drivers()) == ([], HOSTS)


async def test_what_the_host_uses_by_now_stays_with_it(tmp_path: Path, pci: DrawnPci) -> None:
    """Whatever its report said: it has mounted the disk since, and made functions of its own."""
    used = {DISK}
    real = VfioPassthrough(tmp_path / "state", pci=pci, used=lambda: used)
    assert await refused(real, "a", DISK_WHOLE) == "DeviceBusy"
    assert pci.drivers() == HOSTS, "nothing was taken"
    used.clear()
    await real.hand("a", (DISK_WHOLE,))
    used.add(DISK)
    assert await real.hand("a", (DISK_WHOLE,)), "what is handed over is no more the host's"
    (pci.root / "bus/pci/devices" / NIC / "sriov_drivers_autoprobe").write_text("1")
    pci._number(pci.root / "bus/pci/devices" / NIC, 3)
    pci._unbind("0000:42:10.2")
    used.add("0000:42:10.1")
    assert await refused(real, "b", NIC_WHOLE) == "DeviceBusy"
    await real.give_back("b")
    (one,) = await real.hand("c", (functions(1),))
    assert one.properties["host"] == "0000:42:10.2"
    assert await refused(real, "d", functions(1)) == "FunctionsMissing"
    await real.give_back("c")
    assert [pci.driver(f"0000:42:10.{number}") for number in range(3)] == ["mlx5_core", "mlx5_core", ""]


async def test_functions_are_made_anew_when_the_machine_was_started_anew(real: VfioPassthrough, pci: DrawnPci) -> None:
    before = await real.hand("a", (functions(1),)), await real.hand("b", (functions(2),))
    pci._number(pci.root / "bus/pci/devices" / NIC, 0)
    assert (await real.hand("a", (functions(1),)), await real.hand("b", (functions(2),))) == before
    assert list(pci.drivers().values()).count("vfio-pci") == 3


async def test_an_address_that_is_another_devices_by_now_is_not_taken(real: VfioPassthrough, pci: DrawnPci) -> None:
    """A card that was put in has moved the others by a bus, also those that were handed over before."""
    await real.hand("a", (DISK_WHOLE,))
    (pci.root / "bus/pci/devices" / DISK / "class").write_text("0x020000")
    assert await refused(real, "a", DISK_WHOLE) == "DeviceMissing"
    assert await refused(real, "b", Wanted("gpu-0", "gpu", NIC)) == "DeviceMissing"


@pytest.mark.parametrize("damaged", ["", "[]", '{"disk-0": 1}', "\udcff"])
async def test_a_damaged_record_is_passed_over(
    tmp_path: Path, real: VfioPassthrough, pci: DrawnPci, damaged: str
) -> None:
    await real.hand("a", (NIC_WHOLE,))
    (tmp_path / "state/b").write_bytes(damaged.encode(errors="surrogateescape"))
    assert await real.hand("c", (DISK_WHOLE,))
    for uid in await real.uids():
        await real.give_back(uid)
    assert (pci.drivers(), await real.uids()) == (HOSTS, frozenset())


@pytest.mark.parametrize("after", range(4))
async def test_an_agent_killed_in_the_middle_is_gone_on_from(
    real: VfioPassthrough, pci: DrawnPci, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Killed before any of its writes: whoever follows hands over the rest, or gives back what was taken."""
    say, done = pci._say, 0

    def dies(file: Path, words: str) -> None:
        nonlocal done
        if done == after:
            raise KeyboardInterrupt
        done += 1
        say(file, words)

    for follow in ("hand", "give back"):
        done = 0
        monkeypatch.setattr(pci, "_say", dies)
        with pytest.raises(KeyboardInterrupt):
            real._bind(real._take("a", GPU_WHOLE))
        monkeypatch.setattr(pci, "_say", say)
        assert await real.uids() == {"a"}
        if follow == "hand":
            await real.hand("a", GPU_WHOLE)
            assert pci.drivers() == {**HOSTS, GPU: "vfio-pci", AUDIO: "vfio-pci"}
        await real.give_back("a")
        assert (pci.drivers(), await real.uids()) == (HOSTS, frozenset())


async def test_what_cannot_be_is_said_clearly(tmp_path: Path, real: VfioPassthrough, pci: DrawnPci) -> None:
    assert await refused(real, "a", Wanted("x", "disk", "0000:99:00.0")) == "DeviceMissing"
    assert await refused(real, "a", Wanted("x", "disk", "../../etc")) == "DeviceMissing"
    assert await refused(real, "a", Wanted("x", "disk", DISK, functions=1)) == "FunctionsMissing"
    pci.stubborn.add(DISK)
    assert await refused(real, "a", DISK_WHOLE) == "DeviceBusy"
    pci.stubborn.clear()
    (pci.root / "bus/pci/devices" / DISK / "iommu_group").unlink()
    assert await refused(real, "a", DISK_WHOLE) == "IommuMissing"
    await real.give_back("a")
    assert pci.drivers() == HOSTS
    bare = VfioPassthrough(tmp_path / "bare", pci=DrawnPci(tmp_path / "other", vfio=False))
    assert await refused(bare, "a", DISK_WHOLE) == "PassthroughUnavailable"


class Hanging:
    """A kernel that does not answer to one word in one file, until it is let to."""

    def __init__(self, pci: DrawnPci, word: tuple[str, str]) -> None:
        self.answers = threading.Event()
        self.asked = 0
        self._say = pci._say
        self._word = word

    def __call__(self, file: Path, words: str) -> None:
        if not self.answers.is_set() and (file.name, words) == self._word:
            self.asked += 1
            self.answers.wait(60)
        self._say(file, words)


async def test_a_device_that_the_kernel_does_not_let_go_of_keeps_nobody_else(
    tmp_path: Path, pci: DrawnPci, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = VfioPassthrough(tmp_path / "state", pci=pci, seconds=0.1)
    hanging = Hanging(pci, ("unbind", DISK))
    monkeypatch.setattr(pci, "_say", hanging)
    try:
        for _ in range(2):
            assert await refused(real, "a", DISK_WHOLE) == "DeviceBusy"
        with pytest.raises(DriverError, match=r"within 0\.1 s"):
            await real.give_back("a")
        assert await refused(real, "b", DISK_WHOLE) == "DeviceBusy", "it is on record"
        real._seconds = 30.0
        assert await real.hand("c", (NIC_WHOLE,))
        await real.give_back("c")
        assert hanging.asked == 1, "nor is another thread spent on it"
    finally:
        hanging.answers.set()
    assert await real.hand("a", (DISK_WHOLE,))
    await real.give_back("a")
    assert (pci.drivers(), await real.uids()) == (HOSTS, frozenset())


@pytest.mark.parametrize("writes", ["4", "0"])
async def test_a_card_whose_functions_the_kernel_does_not_make_or_unmake_keeps_nobody_else(
    tmp_path: Path, pci: DrawnPci, monkeypatch: pytest.MonkeyPatch, writes: str
) -> None:
    real = VfioPassthrough(tmp_path / "state", pci=pci)
    hanging = Hanging(pci, ("sriov_numvfs", writes))
    monkeypatch.setattr(pci, "_say", hanging)
    try:
        if writes == "0":
            await real.hand("a", (functions(1),))
        real._seconds = real._cards._seconds = 0.1
        if writes == "0":
            with pytest.raises(DriverError, match=r"within 0\.1 s"):
                await real.give_back("a")
        else:
            assert await refused(real, "a", functions(1)) == "DeviceBusy"
        for uid, wanted in (("b", functions(1)), ("c", NIC_WHOLE)):
            with pytest.raises(DriverError) as caught:
                await real.hand(uid, (wanted,))
            assert caught.value.reason == "DeviceBusy"
        real._seconds = 30.0
        with pytest.raises(DriverError, match=f"{NIC}: the kernel has not made or unmade its functions"):
            await real.hand("d", (functions(1),))
        assert await real.hand("e", GPU_WHOLE), "others go on"
        await real.give_back("e")
        assert hanging.asked == 1, "nor is another thread spent on it"
    finally:
        hanging.answers.set()
    real._cards._seconds = 30.0
    assert await real.hand("b", (functions(1),)), "once it answers, it is as it was"
    for uid in await real.uids():
        await real.give_back(uid)
    assert (pci.functions(NIC), await real.uids()) == ([], frozenset())


@pytest.mark.parametrize("before", ["0", "1"])
async def test_whether_the_hosts_drivers_take_functions_is_afterwards_as_it_was(
    tmp_path: Path, pci: DrawnPci, before: str
) -> None:
    (pci.root / "bus/pci/devices" / NIC / "sriov_drivers_autoprobe").write_text(before)
    await VfioPassthrough(tmp_path / "state", pci=pci).hand("a", (functions(1),))
    await VfioPassthrough(tmp_path / "state", pci=pci).hand("b", (functions(1),))
    assert autoprobe(pci, NIC) == "0", "nor one that is loaded later"
    for uid in ("a", "b"):
        await VfioPassthrough(tmp_path / "state", pci=pci).give_back(uid)
    assert (pci.functions(NIC), autoprobe(pci, NIC)) == ([], before)
    assert [entry.name for entry in (tmp_path / "state").iterdir()] == []


async def test_what_is_taken_stands_through_a_power_cut_before_it_is_taken(
    tmp_path: Path, pci: DrawnPci, real: VfioPassthrough, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[tuple[Path, bool]] = []
    monkeypatch.setattr(durable, "settle", lambda folder: settled.append((folder, pci.drivers() == HOSTS)))
    await real.hand("a", (DISK_WHOLE,))
    await real.hand("b", (NIC_WHOLE,))
    state = tmp_path / "state"
    assert [folder for folder, _ in settled] == [tmp_path, state, state]
    assert settled[1] == (state, True), "the name, too, and before the first device is touched"


async def test_what_a_killed_agent_had_half_written_is_nobodys(tmp_path: Path, real: VfioPassthrough) -> None:
    await real.hand("a", (DISK_WHOLE,))
    (tmp_path / "state" / "b.new").write_text("{")
    assert await real.uids() == {"a"}
    await real.hand("b", (NIC_WHOLE,))
    assert await real.uids() == {"a", "b"}


async def test_what_cannot_be_kept_is_not_taken(
    pci: DrawnPci, real: VfioPassthrough, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "put", full)
    assert await refused(real, "a", DISK_WHOLE) == "DiskFull"
    assert (pci.drivers(), await real.uids()) == (HOSTS, frozenset())
