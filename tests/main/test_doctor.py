"""The doctor: a finding per thing, a remedy where there is one, and a status that says whether something is missing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from bessemer.cli.verbs import DoctorOptions
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.main import doctor
from bessemer.main.doctor import Finding


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What an examination finds, given to the doctor."""
    findings: list[Finding] = [Finding("processor", "ok", "two cores")]

    async def examine(_state: Path) -> list[Finding]:
        return findings

    monkeypatch.setattr(doctor, "examine", examine)
    return findings


def test_all_well_is_0(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(Finding("KVM", "limited", "does not run a guest", "enable virtualization"))
    assert doctor.doctor(DoctorOptions()) == 0
    out = capsys.readouterr().out
    assert "two cores" in out
    assert "→ enable virtualization" in out


def test_something_missing_is_1_and_says_what_to_install(
    found: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    found.append(doctor._program("no-such-program-here", "nothing", use="nobody"))
    assert doctor.doctor(DoctorOptions()) == 1
    assert "apt-get install nothing" in capsys.readouterr().out


def test_what_nothing_uses_yet_is_not_missed(
    found: list[Finding], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(os, "access", lambda *_: False)
    found.append(doctor._filters())
    assert doctor.doctor(DoctorOptions()) == 0
    out = capsys.readouterr().out
    assert "~ nftables" in out
    assert "apt-get install nftables" in out


def test_what_is_to_be_typed_is_shown_as_it_is(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(Finding("llama.cpp", "missing", "no [engine]", 'pip install "bessemer[engine]"'))
    doctor.doctor(DoctorOptions())
    out = capsys.readouterr().out
    assert "no [engine]" in out
    assert 'pip install "bessemer[engine]"' in out


def test_as_json(found: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor(DoctorOptions(output="json")) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"what": "processor", "verdict": "ok", "found": "two cores", "remedy": ""}
    ]
    assert doctor.doctor(DoctorOptions(output="yaml")) == 0
    assert capsys.readouterr().out.splitlines()[0] == "- what: processor"


def test_a_machine_with_gpus_and_kvm_has_nothing_to_mend() -> None:
    gpu = Device(id="gpu-0", kind="gpu", model="H200")
    room = NumaNode(id=0, cores=8, threads=16, memory_bytes=64 << 30, hugepages={"1073741824": 4})
    inventory = Inventory(numa=[room], devices=[gpu, gpu], virtualization="kvm", cpu_model="X")
    findings = [doctor._cpu(inventory), *doctor._devices(inventory)]
    assert "8 cores, 16 threads" in findings[0].found
    assert findings[1].found == "2: H200"
    assert findings[2].verdict == "ok"


def test_a_small_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_DISK_WANTED", 1 << 62)
    finding = doctor._disk(tmp_path / "not" / "yet")
    assert finding.verdict == "limited"
    assert str(tmp_path) in finding.found


@pytest.mark.parametrize(("most", "verdict"), [(1_024, "limited"), (524_288, "ok")])
def test_few_files_are_said(most: int, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "obtainable", lambda: most)
    finding = doctor._files()
    assert (finding.verdict, bool(finding.remedy)) == (verdict, verdict == "limited")
    assert f"{most:,}" in finding.found


@pytest.mark.real
def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """The real thing: it looks at everything, changes nothing, and this machine can run guests and engines."""
    assert doctor.doctor(DoctorOptions(output="json")) == 0
    lines = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    software = {"qemu-system-x86", "qemu-utils", "llama.cpp", "nftables", "isolation"}
    kinds = {"processor", "KVM", "GPUs", "hugepages", "IOMMU groups", "disk", "files"}
    assert set(lines) == {*kinds, *software}
    assert lines["qemu-system-x86"]["found"] == shutil.which("qemu-system-x86_64")
    assert lines["KVM"]["verdict"] == "ok" or lines["KVM"]["remedy"], "what is missing comes with what to do"
    groups = Path("/sys/kernel/iommu_groups")
    assert lines["IOMMU groups"]["found"] == str(len(os.listdir(groups)) if groups.is_dir() else 0)
    assert "free at" in lines["disk"]["found"]


def test_what_content_takes_is_said_where_there_is_some(tmp_path: Path) -> None:
    assert doctor._content(tmp_path) == []
    content = tmp_path / "content"
    content.mkdir()
    for name, size in (("a" * 64, 2048), ("b" * 64, 1024), ("c" * 64 + ".part", 512)):
        (content / name).write_bytes(bytes(size))
    (content / ("b" * 64 + ".idle")).touch()
    (found,) = doctor._content(tmp_path)
    assert found.found == "2 KiB in use, 1 KiB that nobody names any more, 512 B on the way"
