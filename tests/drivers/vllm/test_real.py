"""vLLM on this machine's processors, with the small model made of its GGUF file: one engine, asked for all that it
promises, for a start takes a minute and more."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.core.units import GIB
from bessemer.drivers.engine.protocol import Adapter, EngineSpec
from bessemer.drivers.engine.real import HostEngines
from bessemer.drivers.process.protocol import End
from bessemer.drivers.process.real import HostProcesses
from bessemer.drivers.vllm.protocol import REFUSED, VLLM
from bessemer.drivers.vllm.real import Vllm
from tests.drivers.engine import tiny
from tests.drivers.engine.conftest import ALIAS, SECRET, model_path, talk

__all__ = ["model_path"]

pytestmark = [pytest.mark.long, pytest.mark.real]

ROOT = Path(__file__).parents[3]
QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "0", "VLLM_NO_USAGE_STATS": "1"}
START_SECONDS = 900

ASK = """
import json
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
parsers = {"tool-call-parser": ToolParserManager, "reasoning-parser": ReasoningParserManager}
actions = make_arg_parser(FlexibleArgumentParser())._actions
print("OPTIONS" + json.dumps({
    word.removeprefix("--"): {
        "kind": type(one).__name__, "type": getattr(one.type, "__name__", ""),
        "choices": one.choices or [n for key in parsers if f"--{key}" == word for n in parsers[key].list_registered()],
    }
    for one in actions for word in one.option_strings
}, default=list))
"""


@pytest.fixture(scope="module")
def home() -> Path:
    """vLLM's environment, installed where it is not."""
    place = (ROOT / os.environ.get("VLLM", ".cache/vllm")).absolute()
    subprocess.run([ROOT / "tools/vllm", place], check=True)
    return place


@pytest.fixture(scope="module")
def folder(home: Path, model_path: Path) -> Iterator[Path]:
    """The model as vLLM reads it; the GGUF needs a name that says what it is."""
    work = Path(tempfile.mkdtemp(prefix="bsm-"))
    shutil.copyfile(model_path, work / "m.gguf")
    words = [home / "bin/python", Path(__file__).with_name("convert.py"), work / "m.gguf", work / "hf"]
    subprocess.run(words, check=True, env={**os.environ, **QUIET})
    yield work / "hf"
    shutil.rmtree(work)


@dataclass
class Host:
    """The processes and doors of one folder."""

    state: Path
    home: Path

    @property
    def engines(self) -> HostEngines:
        """As each new agent has them."""
        processes = HostProcesses(self.state / "engines", users=self.state / "users")
        return HostEngines(
            processes,
            self.state / "doors",
            state=self.state / "adapters",
            recipes=(Vllm(self.home),),
            probe_seconds=120.0,
        )


@pytest.fixture
async def host(home: Path) -> AsyncIterator[Host]:
    made = Host(Path(tempfile.mkdtemp(prefix="bsm-")), home)
    yield made
    for uid in ("a", "b"):
        await made.engines.stop(uid)
    shutil.rmtree(made.state, ignore_errors=True)


def spec(folder: Path, *adapters: Adapter, uid: str = "a", memory_bytes: int = 6 * GIB) -> EngineSpec:
    return EngineSpec(uid, folder, ALIAS, 2, 2048, 1, memory_bytes, 2000, SECRET, engine="vllm", adapters=adapters)


async def ready(host: Host, uid: str = "a") -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await host.engines.probe(uid, SECRET, alias=ALIAS)
            except DriverError as error:
                if error.reason != "EngineStarting":
                    raise
                await asyncio.sleep(0.5)
            else:
                return


async def test_one_engine_and_all_that_it_promises(host: Host, folder: Path, tmp_path: Path) -> None:
    one, two = (Adapter(name, tiny.peft(tmp_path / name, seed=seed)) for name, seed in (("one", 1), ("two", 2)))
    running = await host.engines.start(spec(folder, one))
    await ready(host)
    assert await host.engines.find("a") == running, "an agent that comes later finds it"
    await host.engines.check("a")
    await _asks_for_its_secret(host)
    await _counts(host)
    await _takes_adapters(host, one, two)
    await _keeps_tenants_apart(host)
    await _keeps_to_a_schema(host)
    said = b"".join([chunk async for chunk in host.engines.log("a")])
    assert said
    assert SECRET.encode() not in said
    os.kill(running.pid, 9)
    async with asyncio.timeout(60):
        while await host.engines.find("a") is not None:
            await asyncio.sleep(0.1)
    end = await host.engines.ended("a")
    assert end is not None
    assert end.reason is End.CRASHED


async def _asks_for_its_secret(host: Host) -> None:
    door = host.engines.door("a")
    with pytest.raises(DriverError) as refusal:
        await host.engines.probe("a", "sk-other")
    assert refusal.value.reason == "ProbeFailed"
    reply = await talk(door, secret="sk-other")
    assert (reply.status, reply.events[0]["error"]["type"]) == (401, "authentication_error")
    # vLLM's own key would guard neither.
    for path in ("/metrics", "/tokenize"):
        with pytest.raises(DriverError, match="status 401"):
            await host.engines._asking.ask("a", path, secret="sk-other")


async def _counts(host: Host) -> None:
    before = await host.engines.metrics("a", SECRET)
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply = await talk(host.engines.door("a"), stream=True, stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in reply.events if event.get("usage")]
    assert reply.done
    assert counts == sorted(counts)
    assert len(counts) > 2
    usage = reply.events[-1]["usage"]
    after = await host.engines.metrics("a", SECRET)
    had = before.prompt_tokens_total + before.prompt_tokens_cached_total
    assert after.prompt_tokens_total + after.prompt_tokens_cached_total - had == usage["prompt_tokens"]
    assert after.tokens_predicted_total - before.tokens_predicted_total == usage["completion_tokens"]
    assert after.kv_used is not None


async def _takes_adapters(host: Host, one: Adapter, two: Adapter) -> None:
    adapters, door = host.engines.adapters, host.engines.door("a")

    async def text(model: str) -> str:
        return (await talk(door, model=model, temperature=0)).text

    assert await adapters.names("a", SECRET) == ("one",)
    for _ in range(2):
        await adapters.load("a", SECRET, adapter=two)
    assert await adapters.names("a", SECRET) == ("one", "two")
    said = [await text(model) for model in (ALIAS, f"{ALIAS}:one", f"{ALIAS}:two", ALIAS)]
    assert len(set(said)) == 3
    assert said[0] == said[3]
    for _ in range(2):
        await adapters.unload("a", SECRET, name="one")
    assert await adapters.names("a", SECRET) == ("two",)
    assert (await talk(door, model=f"{ALIAS}:one")).status == 404


async def _keeps_tenants_apart(host: Host) -> None:
    async def cached(**words: str) -> int:
        asked = [{"role": "user", "content": "Iron runs from the blown vessel as steel. " * 20}]
        usage = (await talk(host.engines.door("a"), messages=asked, **words)).events[0]["usage"]
        return int((usage["prompt_tokens_details"] or {"cached_tokens": 0})["cached_tokens"] or 0)

    first, again = [await cached(cache_salt="acme") for _ in range(2)]
    assert (first, again > 0) == (0, True)
    assert await cached(cache_salt="other") == 0


async def _keeps_to_a_schema(host: Host) -> None:
    # A schema without blanks: a model of this size goes on with them.
    schema = {"type": "string", "enum": ["iron", "steel"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "metal", "schema": schema, "strict": True}}
    text = (await talk(host.engines.door("a"), response_format=wanted, temperature=0)).text
    assert json.loads(text) in schema["enum"]


async def test_a_model_that_is_none_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    await host.engines.start(spec(tmp_path, uid="b"))
    with pytest.raises(DriverError) as refusal:
        await ready(host, "b")
    assert refusal.value.reason == "EngineExited"


def test_the_table_is_what_vllm_says_of_itself(home: Path) -> None:
    done = subprocess.run(
        [home / "bin/python", "-c", ASK], check=True, capture_output=True, text=True, env={**os.environ, **QUIET}
    )
    known = json.loads(done.stdout.rpartition("OPTIONS")[2])
    assert [name for name in (*VLLM.options, *REFUSED) if name not in known] == []
    for name, option in VLLM.options.items():
        said = known[name]
        assert (option.type == "bool") == (said["kind"] == "BooleanOptionalAction"), name
        if option.type == "word":
            assert set(option.choices) <= set(said["choices"]), name
        if option.type in ("int", "float") and said["type"] in ("int", "float"):
            assert option.type == said["type"], name
