"""Models from a hub, a URL and a folder: what comes is what their sources said, resumed, and from nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch import bringing
from bessemer.drivers.fetch.bringing import Limits, SourceModels
from bessemer.drivers.fetch.choose import chosen
from bessemer.drivers.fetch.manifest import check_paths, manifest_of
from bessemer.drivers.fetch.protocol import HttpPlace, HubPlace, Listed, Listing, Model, PathPlace, Place
from bessemer.drivers.fetch.reach import Reach
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.fetch.web import Asking, Web
from tests.drivers.weights import made
from tests.hub.server import LOOPBACK, Hub

REPO = "tiny/llama"
WEIGHTS = made.safetensors({"a": made.tensor("F32", (65536,), 0, 262144)}, bytes(262144))
FILES: Mapping[str, bytes] = {
    "model.safetensors": WEIGHTS,
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}" * 50,
    "pytorch_model.bin": b"\x80\x02.",
    "README.md": b"# It",
    "code.py": b"raise SystemExit",
    "onnx/config.json": b"{}",
}
SPLIT = {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}
TAKEN = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        hub.add(REPO, FILES)
        yield hub


class Bench:
    """Models brought from a hub on loopback, which the operator allows."""

    def __init__(self, folder: Path, url: str = "", *, allowed: str = LOOPBACK) -> None:
        self.store = HostContent(folder / "content")
        self.limits = Limits(
            reach=Reach.of(allowed), endpoint=url, folders=(folder / "models",), pause_seconds=0.0, reserve_bytes=0
        )
        self.told: list[tuple[int, int]] = []

    async def bring(self, place: Place, *, revision: str = "", **secrets: str) -> Model:
        models = SourceModels(self.store, self.limits)
        return await models.bring(
            place, revision=revision, secrets=secrets, progress=lambda had, size: self.told.append((had, size))
        )

    async def refusal(self, place: Place, **secrets: str) -> DriverError:
        with pytest.raises(DriverError) as found:
            await self.bring(place, **secrets)
        assert [item.size_bytes for item in await self.store.stored() if item.size_bytes == len(WEIGHTS)] == []
        return found.value


def contents(model: Model) -> dict[str, bytes]:
    return {part.path: part.file.read_bytes() for part in model.parts}


# --- the hub ------------------------------------------------------------------------------------------------------


async def test_a_model_comes_whole_with_what_it_needs_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    bench = Bench(tmp_path, hub.url)
    model = await bench.bring(HubPlace(repository=REPO))
    assert contents(model) == {path: FILES[path] for path in TAKEN}
    assert (model.revision, model.gated) == ("a" * 40, False)
    assert [part.digest for part in model.parts] == [
        "sha256:" + hashlib.sha256(FILES[path]).hexdigest() for path in TAKEN
    ]
    total = sum(len(FILES[path]) for path in TAKEN)
    assert bench.told == sorted(bench.told)
    assert bench.told[-1] == (total, total)
    assert not hub.gets("pytorch_model") + hub.gets("code.py") + hub.gets("README")


async def test_many_pages(hub: Hub, tmp_path: Path) -> None:
    hub.faults.page = 2
    assert len((await Bench(tmp_path, hub.url).bring(HubPlace(repository=REPO))).parts) == 3


async def test_a_branch_that_moves_is_another_revision_and_the_old_one_can_still_be_had(
    hub: Hub, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, hub.url)
    first = await bench.bring(HubPlace(repository=REPO))
    hub.add(REPO, {**FILES, "config.json": b'{"model_type": "other"}'}, commit="b" * 40)
    again = await bench.bring(HubPlace(repository=REPO), revision=first.revision)
    assert again == first
    moved = await bench.bring(HubPlace(repository=REPO))
    assert (moved.revision, contents(moved)["config.json"]) == ("b" * 40, b'{"model_type": "other"}')
    assert manifest_of(moved.parts) != manifest_of(first.parts)


async def test_what_is_here_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    bench = Bench(tmp_path, hub.url)
    await bench.bring(HubPlace(repository=REPO))
    await bench.bring(HubPlace(repository=REPO))
    assert len(hub.gets("/resolve/" + "a" * 40 + "/model.safetensors")) == 1


async def test_a_gated_repository_wants_a_token_which_goes_to_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[REPO].token = "hf_sesame"
    bench = Bench(tmp_path, hub.url)
    for secrets in ({}, {"token": "wrong"}):
        refusal = await bench.refusal(HubPlace(repository=REPO), **secrets)
        assert refusal.reason == "SourceGated"
        assert "terms" in refusal.message
    model = await bench.bring(HubPlace(repository=REPO), token="hf_sesame")
    assert (len(model.parts), model.gated) == (3, True)
    heads = [headers for server, _, headers in hub.asked if server == "storage"]
    assert heads
    assert all("Authorization" not in headers for headers in heads)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (HubPlace(repository="tiny/none"), "SourceNotFound"),
        (HubPlace(repository=REPO, revision="none"), "SourceNotFound"),
        (HubPlace(repository=REPO, files=("*.gguf",)), "FilesUnclear"),
        (HubPlace(repository=REPO, files=("*.py",)), "FilesUnclear"),
        (HubPlace(repository=REPO, files=("pytorch_model.bin",)), "PickleRefused"),
    ],
)
async def test_what_is_not_there_or_not_taken_is_said(hub: Hub, tmp_path: Path, place: Place, reason: str) -> None:
    assert (await Bench(tmp_path, hub.url).refusal(place)).reason == reason


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"pytorch_model.bin": b"\x80\x02.", "config.json": b"{}"}, "PickleRefused"),
        ({"a-Q4.gguf": b"GGUF", "a-Q8.gguf": b"GGUF"}, "FilesUnclear"),
        ({"README.md": b"# It", "config.json": b"{}"}, "FilesUnclear"),
        ({"../model.safetensors": WEIGHTS}, "ImportFailed"),
        ({"a/../../model.safetensors": WEIGHTS, "config.json": b"{}"}, "ImportFailed"),
        ({"/etc/model.safetensors": WEIGHTS, "config.json": b"{}"}, "ImportFailed"),
        ({"Model.safetensors": WEIGHTS, "model.safetensors": WEIGHTS}, "ImportFailed"),
    ],
)
async def test_a_repository_that_is_no_model_is_refused(
    hub: Hub, tmp_path: Path, files: Mapping[str, bytes], reason: str
) -> None:
    hub.add("odd/one", files)
    assert (await Bench(tmp_path, hub.url).refusal(HubPlace(repository="odd/one"))).reason == reason


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        ({*SPLIT, "config.json"}, SPLIT),
        ({"m.gguf", "mmproj-m.gguf"}, {"m.gguf"}),
        ({"model.safetensors", "consolidated.safetensors", "a/config.json"}, {"model.safetensors"}),
        ({"model.safetensors", "m.gguf", "chat_template.jinja"}, {"model.safetensors", "chat_template.jinja"}),
        ({"adapter_model.safetensors", "adapter_config.json"}, {"adapter_model.safetensors", "adapter_config.json"}),
    ],
)  # fmt: skip
def test_what_is_taken_of_what_lies_there(files: set[str], taken: set[str]) -> None:
    listing = Listing("", tuple(Listed(path=path) for path in files))
    assert {file.path for file in chosen(listing, ())} == taken


def test_names_that_are_shown_command_no_terminal() -> None:
    files = tuple(Listed(path=f"{name}.gguf") for name in ("\x1b[2Ja", "\x9bb", "c\udcff"))
    with pytest.raises(DriverError, match="several GGUF") as refusal:
        chosen(Listing("", files), ())
    assert refusal.value.message.isprintable()
    refusal.value.message.encode()


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
async def test_other_bytes_than_the_hub_said_are_kept_nowhere(hub: Hub, tmp_path: Path, path: str) -> None:
    """Large files are known by SHA-256, small ones by git's id."""
    hub.faults.spoilt = {path}
    bench = Bench(tmp_path, hub.url)
    refusal = await bench.refusal(HubPlace(repository=REPO, files=(path,)))
    assert refusal.reason == "DigestMismatch"
    assert await bench.store.stored() == ()
    assert list((tmp_path / "content").glob("*.part")) == []


async def test_cut_connections_are_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    hub.faults.cut, hub.faults.cuts = 100_000, 2
    place = HubPlace(repository=REPO, files=("model.safetensors",))
    model = await Bench(tmp_path, hub.url).bring(place)
    assert contents(model) == {"model.safetensors": WEIGHTS}
    ranges = [headers.get("Range") for server, _, headers in hub.asked if server == "storage"]
    assert len(ranges) == 3
    assert ranges[0] is None
    assert all(str(one).startswith("bytes=") for one in ranges[1:])


async def test_a_storage_without_ranges_is_read_from_its_beginning(hub: Hub, tmp_path: Path) -> None:
    hub.faults.cut, hub.faults.cuts, hub.faults.unranged = 100_000, 1, True
    model = await Bench(tmp_path, hub.url).bring(HubPlace(repository=REPO, files=("model.safetensors",)))
    assert contents(model) == {"model.safetensors": WEIGHTS}


async def test_given_up_and_asked_again_it_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.faults.cut, hub.faults.cuts = 20_000, 5
    bench = Bench(tmp_path, hub.url)
    place = HubPlace(repository=REPO, files=("model.safetensors",))
    assert (await bench.refusal(place)).reason == "FetchFailed"
    hub.asked.clear()
    assert contents(await bench.bring(place)) == {"model.safetensors": WEIGHTS}
    begun = [headers.get("Range", "") for server, _, headers in hub.asked if server == "storage"]
    assert [int(one.removeprefix("bytes=").removesuffix("-")) > 0 for one in begun] == [True]


async def test_more_than_the_list_said_is_not_read(hub: Hub, tmp_path: Path) -> None:
    hub.faults.lies = {"config.json": 5}
    refusal = await Bench(tmp_path, hub.url).refusal(HubPlace(repository=REPO, files=("config.json",)))
    assert refusal.reason == "FetchFailed"
    hub.faults.lies = {"model.safetensors": 1 << 60}
    refusal = await Bench(tmp_path, hub.url).refusal(HubPlace(repository=REPO))
    assert refusal.reason == "ImportFailed"


async def test_what_has_no_room_does_not_begin(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is wanted for what is still to come."""
    bench, free = Bench(tmp_path, hub.url), len(WEIGHTS) + 1000
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, free))
    await bench.bring(HubPlace(repository=REPO))
    free = 10
    await bench.bring(HubPlace(repository=REPO, files=("model.safetensors",)))
    hub.asked.clear()
    other = Bench(tmp_path / "other", hub.url)
    refusal = await other.refusal(HubPlace(repository=REPO))
    assert refusal.reason == "DiskFull"
    assert hub.gets("/resolve/") == []


async def test_a_disk_is_not_filled_by_what_says_no_size(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control plane has its store there, too."""
    bench, free = Bench(tmp_path, hub.url), [100, 99]
    bench.limits = replace(bench.limits, reserve_bytes=100)
    monkeypatch.setattr(bringing, "LOOK_BYTES", 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, free.pop(0)))
    monkeypatch.setattr(Web, "likeness", likeness)
    refusal = await bench.refusal(HttpPlace(url=f"{hub.url}/{REPO}/resolve/main/model.safetensors"))
    assert refusal.reason == "DiskFull"
    assert free == []
    free[:] = [99]
    assert (await bench.refusal(HubPlace(repository=REPO))).reason == "DiskFull"


async def likeness(_: Web, asking: Asking) -> tuple[int, str]:
    """That of a server which says nothing."""
    return -1, ""


@pytest.mark.parametrize("body", [b"", b"[]", b'{"sha": "main"}', b'{"sha": 5}', b"{" * 10_000, b'"x"'])
@pytest.mark.parametrize("end", ["/revision/main", "/tree/" + "a" * 40])
async def test_a_hub_that_speaks_otherwise_is_refused(hub: Hub, tmp_path: Path, end: str, body: bytes) -> None:
    hub.faults.raw = {end: body}
    assert (await Bench(tmp_path, hub.url).refusal(HubPlace(repository=REPO))).reason in (
        "ImportFailed",
        "FilesUnclear",
    )


@pytest.mark.parametrize(
    "entry",
    [
        b'[{"type": "file"}]',
        b'[{"type": "file", "path": "a.gguf", "oid": "x", "size": -1}]',
        b'[{"type": "file", "path": "a.gguf", "oid": "x", "size": 1, "lfs": {"oid": "x"}}]',
        b'[{"type": "file", "path": "a.gguf", "oid": "x", "size": true}]',
        b"[1]",
    ],
)
async def test_a_list_that_cannot_be_read_is_refused(hub: Hub, tmp_path: Path, entry: bytes) -> None:
    hub.faults.raw = {"/tree/" + "a" * 40: entry}
    assert (await Bench(tmp_path, hub.url).refusal(HubPlace(repository=REPO))).reason == "ImportFailed"


# --- where we may be sent -----------------------------------------------------------------------------------------


async def test_an_inner_hub_wants_the_operators_word(hub: Hub, tmp_path: Path) -> None:
    refusal = await Bench(tmp_path, hub.url, allowed="").refusal(HubPlace(repository=REPO))
    assert refusal.reason == "AddressRefused"
    assert hub.asked == []


@pytest.mark.parametrize(
    "onward", ["http://169.254.169.254/x", "http://10.0.0.1/x", "file:///etc/passwd", "gopher://x"]
)
async def test_a_redirect_inside_is_not_followed(hub: Hub, tmp_path: Path, onward: str) -> None:
    hub.faults.onward = onward
    refusal = await Bench(tmp_path, hub.url).refusal(HubPlace(repository=REPO, files=("model.safetensors",)))
    assert refusal.reason == "AddressRefused"


async def test_redirects_end(hub: Hub, tmp_path: Path) -> None:
    hub.faults.onward = f"{hub.url}/{REPO}/resolve/{'a' * 40}/model.safetensors"
    refusal = await Bench(tmp_path, hub.url).refusal(HubPlace(repository=REPO, files=("model.safetensors",)))
    assert refusal.reason == "FetchFailed"
    assert len(hub.gets("/model.safetensors")) <= 5 * 6


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://[::ffff:127.0.0.1]/a",
        "https://[64:ff9b::7f00:1]/a",
        "https://[2002:7f00:1::]/a",
        "https://10.1.2.3/a",
        "https://100.64.0.1/a",
        "https://[fd00::1]/a",
        "https://[fec0::1]/a",
        "https://[64:ff9b:1::7f00:1]/a",
        "https://[::ffff:0:7f00:1]/a",
        "https://[::7f00:1]/a",
        "https://169.254.169.254/latest",
        "https://[fe80::1]/a",
        "https://0.0.0.0/a",
        "https://224.0.0.1/a",
        "http://example.org/a",
        "ftp://example.org/a",
        "https://user:word@example.org/a",
        "https:///a",
        "https://exa mple.org/a",
        "https://[1/a",
        "https://example.org:0/a",
    ],
)
def test_urls_that_nobody_is_sent_to(url: str) -> None:
    with pytest.raises(DriverError) as refusal:
        Reach.of("").check_url(url)
    assert refusal.value.reason == "AddressRefused"


def test_what_the_operator_names_and_what_nobody_may_name() -> None:
    reach = Reach.of("10.0.0.0/8, mirror.example, fd00::/8")
    for url in ("http://10.1.2.3/a", "https://[fd00::1]/a", "http://mirror.example/a", "https://example.org/a"):
        assert reach.check_url(url).geturl() == url
    wide = Reach.of("0.0.0.0/0, ::/0")
    for url in ("https://169.254.169.254/a", "https://[fe80::1]/a", "https://[fd00:ec2::254]/a", "https://224.0.0.1/a"):
        with pytest.raises(DriverError):
            wide.check_url(url)


@pytest.mark.parametrize("name", ["localhost", "2130706433", "0x7f.1", "127.1"])
async def test_a_name_of_this_machine_is_not_dialled(tmp_path: Path, name: str) -> None:
    """Judged as it is resolved: whatever the name, the address counts."""
    refusal = await Bench(tmp_path, allowed="").refusal(HttpPlace(url=f"https://{name}:1/m.gguf"))
    assert refusal.reason == "AddressRefused"


async def test_the_address_that_was_judged_is_the_one_that_is_dialled(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that stands at a public address when it is looked up first, and at this machine's the second time."""
    answers = iter(["93.184.215.14", *["127.0.0.1"] * 20])
    port = int(hub.url.rpartition(":")[2])
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        found = next(answers)
        asked.append(found)
        return [{"hostname": host, "host": found, "port": port, "family": 2, "proto": 6, "flags": 0}]

    dialled: list[str] = []

    async def connect(*args: Any, addr_infos: Any, **kwargs: Any) -> Any:
        dialled.extend(info[4][0] for info in addr_infos)
        raise OSError("nobody is there")

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", connect)
    bench = Bench(tmp_path, allowed="")
    assert (await bench.refusal(HttpPlace(url=f"https://rebinds.example:{port}/a.gguf"))).reason == "ImportFailed"
    assert dialled == ["93.184.215.14"]
    assert (await bench.refusal(HttpPlace(url=f"https://rebinds.example:{port}/a.gguf"))).reason == "AddressRefused"
    assert dialled == ["93.184.215.14"]


# --- a URL, a folder ----------------------------------------------------------------------------------------------


async def test_a_file_at_a_url(hub: Hub, tmp_path: Path) -> None:
    bench = Bench(tmp_path, hub.url)
    url = f"{hub.url}/{REPO}/resolve/{'a' * 40}/model.safetensors"
    hub.faults.cut, hub.faults.cuts = 100_000, 2  # one of them is of the question for its size
    model = await bench.bring(HttpPlace(url=url))
    assert contents(model) == {"model.safetensors": WEIGHTS}
    other = Bench(tmp_path / "other", hub.url)
    assert (await other.refusal(HttpPlace(url=url.replace("llama", "none")))).reason == "SourceGated"


async def test_a_folder(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = tmp_path / "models" / "one"
    (folder / "sub").mkdir(parents=True)
    for path in ("model.safetensors", "config.json", "code.py"):
        (folder / path).write_bytes(FILES[path])
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    os.mkfifo(folder / "vocab.txt")
    model = await bench.bring(PathPlace(path=str(folder)))
    assert contents(model) == {path: FILES[path] for path in ("config.json", "model.safetensors")}
    alone = await bench.bring(PathPlace(path=str(folder / "model.safetensors")))
    assert contents(alone) == {"model.safetensors": WEIGHTS}


async def test_a_folder_elsewhere_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    inside = tmp_path / "models"
    inside.mkdir()
    (tmp_path / "secret.gguf").write_bytes(b"GGUF")
    (inside / "link").symlink_to(tmp_path)
    for path, reason in (
        ("/etc/passwd", "AddressRefused"),
        (f"{inside}/../secret.gguf", "AddressRefused"),
        (f"{inside}x", "AddressRefused"),
        (f"{inside}/link/secret.gguf", "SourceNotFound"),
        (f"{inside}/none", "SourceNotFound"),
    ):
        assert (await bench.refusal(PathPlace(path=path))).reason == reason, path


@pytest.mark.parametrize(
    "paths",
    [
        ["../a"],
        ["/a"],
        ["a//b"],
        ["a/./b"],
        [".git/a"],
        ["a\nb"],
        ["a\x00"],
        ["a b"],
        ["-rf"],
        ["a\u202eb"],
        ["é"],
        ["a", "A"],
        ["a", "a/b"],
        ["A/b", "a"],
        ["x" * 201],
        ["/".join("abcdefghi")],
        ["a", "a"],
        ["a\\b"],
        [""],
        ["con:"],
    ],
)
def test_paths_that_no_models_file_has(paths: list[str]) -> None:
    with pytest.raises(DriverError) as refusal:
        check_paths(paths)
    assert refusal.value.reason == "ImportFailed"


# --- killed -------------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from pathlib import Path
from tests.drivers.fetch.test_models import Bench, REPO
from bessemer.drivers.fetch.protocol import HubPlace
bench = Bench(Path(sys.argv[1]), sys.argv[2])
asyncio.run(bench.bring(HubPlace(repository=REPO, files=("model.safetensors",))))
"""


async def test_killed_it_goes_on_in_another_process(hub: Hub, tmp_path: Path) -> None:
    big = made.safetensors({"a": made.tensor("F32", (1 << 20,), 0, 4 << 20)}, 4 << 20)
    hub.add(REPO, {"model.safetensors": big})
    hub.faults.hold = 2 << 20
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path), hub.url, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    part = tmp_path / "content" / (hashlib.sha256(big).hexdigest() + ".part")
    async with asyncio.timeout(30):
        while not part.exists() or part.stat().st_size < 1 << 20:
            await asyncio.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    had, hub.faults.hold = part.stat().st_size, 0
    hub.asked.clear()
    model = await Bench(tmp_path, hub.url).bring(HubPlace(repository=REPO, files=("model.safetensors",)))
    assert contents(model) == {"model.safetensors": big}
    assert [h.get("Range") for server, _, h in hub.asked if server == "storage"] == [f"bytes={had}-"]


async def test_a_token_is_told_to_the_urls_own_host_and_not_whither_that_redirects(hub: Hub, tmp_path: Path) -> None:
    hub.add("tiny/private", FILES, token="hf_sesame")
    url = f"{hub.url}/tiny/private/resolve/{'a' * 40}/model.safetensors"
    bench = Bench(tmp_path, hub.url)
    with pytest.raises(DriverError):
        await bench.bring(HttpPlace(url=url))
    hub.asked.clear()
    assert contents(await bench.bring(HttpPlace(url=url), token="hf_sesame")) == {"model.safetensors": WEIGHTS}
    told = {server: headers.get("Authorization") for server, _, headers in hub.gets("model.safetensors")}
    assert told == {"hub": "Bearer hf_sesame", "storage": None}
