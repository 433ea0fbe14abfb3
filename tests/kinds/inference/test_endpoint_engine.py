"""Which engine an Endpoint gets, what may be said to it, and which adapters it has: by field, and as its claims say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import DriverError
from bessemer.core.inference import AdapterFacts, ModelFile
from bessemer.core.ports import Writer
from bessemer.core.resource import Metadata
from bessemer.core.units import GIB
from bessemer.drivers.fetch.protocol import HubPlace
from bessemer.kinds.inference.endpoint.host import EndpointHost
from bessemer.kinds.inference.endpoint.spec import (
    AdapterIntent,
    Endpoint,
    EndpointIntent,
    EndpointSpec,
    EngineChoice,
    FileIntent,
    sort_of,
    validate,
)
from tests.kinds.host_bench import DIGEST, HostBench, started
from tests.kinds.world import MODEL_SHA, World

SPEC = {"model": "smol", "flavor": "serve"}


def endpoint(**spec: Any) -> Endpoint:
    metadata = Metadata(name="chat", namespace="acme--research")
    return Endpoint(metadata=metadata, spec=EndpointSpec.model_validate({**SPEC, **spec}))


def fields(**spec: Any) -> list[str]:
    return [cause.field for cause in validate(endpoint(**spec), None)]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"engine": {"name": "llamacpp", "arguments": {"batch-size": 1}}}, "spec.engine.arguments.batch-size"),
        ({"engine": {"name": "llamacpp", "arguments": {"host": "0.0.0.0"}}}, "spec.engine.arguments.host"),
        (
            {"engine": {"name": "vllm", "arguments": {"trust-remote-code": True}}},
            "spec.engine.arguments.trust-remote-code",
        ),
        ({"engine": {"name": "vllm", "arguments": {"batch-size": 64}}}, "spec.engine.arguments.batch-size"),
        ({"engine": {"arguments": {"batch-size": 64}}}, "spec.engine.name"),
        ({"adapters": ["a", "b", "a"]}, "spec.adapters[2]"),
        (
            {"adapters": ["a"], "engine": {"name": "llamacpp", "arguments": {"cache-prompt": True}}},
            "spec.engine.arguments.cache-prompt",
        ),
    ],
)
def test_what_no_engine_would_take_is_refused_by_its_field(spec: dict[str, Any], field: str) -> None:
    assert fields(**spec) == [field]


def test_what_an_engine_takes_is_taken() -> None:
    assert fields(engine={"name": "llamacpp", "arguments": {"pooling": "mean", "flash-attn": "on"}}) == []
    assert fields(engine={"name": "vllm", "arguments": {"enable-prefix-caching": False, "max-loras": 4}}) == []
    assert fields(adapters=["a", "b"]) == []


def test_the_engine_is_the_first_that_serves_the_format() -> None:
    def name(choice: str, form: str) -> str:
        sort = sort_of(EngineChoice.model_validate({"name": choice}), format=form)
        return sort.name if sort else ""

    assert [name("auto", form) for form in ("gguf", "safetensors", "onnx", "")] == ["llamacpp", "vllm", "", "llamacpp"]
    assert [name("vllm", form) for form in ("gguf", "safetensors")] == ["", "vllm"]


def test_an_endpoint_that_says_nothing_of_it_is_what_it_was() -> None:
    assert not {"engine", "adapters"} & endpoint().spec.dump().keys()
    old = {"model": DIGEST, "alias": "chat", "slots": 4, "contextTokens": 64, "coresMilli": 1, "memoryBytes": 1}
    intent = EndpointIntent.model_validate(old)
    assert intent.engine == "llamacpp"
    assert intent.dump() == {**old, "needsBytes": 0}


async def test_its_claims_name_the_engine_and_the_adapters() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {**SPEC, "adapters": ["greet"]})
        said = await world.until_reason("Endpoint", "chat", "ModelNotFound")
        assert "there is no Model greet, an adapter" in said["message"]
        source = {"wheel": {"package": "x", "version": "1", "member": "m.gguf"}}
        world.importer.adapter = AdapterFacts()
        adapter = {"source": source, "sha256": MODEL_SHA, "adapterOf": "smol"}
        await world.create("Model", "greet", adapter, namespace="")
        await world.until_ready("Endpoint", "chat")
        [claim] = await world.bodies("Claim")
        assert claim["spec"]["intent"]["adapters"] == [{"name": "greet", "digest": f"sha256:{MODEL_SHA}"}]
        assert "engine" not in claim["spec"]["intent"], "what agents of yesterday know is said as they know it"


async def test_an_engine_that_cannot_serve_the_model_takes_no_place() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {**SPEC, "engine": {"name": "vllm"}})
        said = await world.until_reason("Endpoint", "chat", "EngineUnfit")
        assert "engine vllm does not serve Model smol, whose format is gguf" in said["message"]
        assert await world.bodies("Claim") == []


PARTS = tuple(
    ModelFile(path=path, digest="sha256:" + mark * 64, size_bytes=2)
    for path, mark in (("config.json", "1"), ("model.safetensors", "2"))
)
NAMED = [{"path": part.path, "digest": part.digest} for part in PARTS]


async def test_a_model_of_several_files_is_named_file_by_file() -> None:
    """So its host brings them all, keeps them all, and may have them all of the api; adapters likewise."""
    async with World() as world:
        world.importer.files[HubPlace], world.importer.format = PARTS, "safetensors"
        await world.create("Model", "hubbed", {"source": {"hub": {"repository": "a/b"}}}, namespace="")
        await world.until_ready("Model", "hubbed", namespace="")
        world.importer.adapter = AdapterFacts(rank=8)
        tuned = {"source": {"hub": {"repository": "a/c"}}, "adapterOf": "hubbed"}
        await world.create("Model", "tuned", tuned, namespace="")
        await world.until_ready("Model", "tuned", namespace="")
        await world.create("Endpoint", "chat", {**SPEC, "model": "hubbed", "adapters": ["tuned"]})

        async def taken() -> bool:
            return bool(await world.bodies("Claim"))

        await world.until(taken)
        [claim] = await world.bodies("Claim")
        intent = claim["spec"]["intent"]
        assert (intent["engine"], intent["files"], intent["model"]) == ("vllm", NAMED, DIGEST)
        assert intent["adapters"] == [{"name": "tuned", "digest": DIGEST, "files": NAMED}]


async def test_a_gguf_model_of_several_files_is_served_by_none() -> None:
    async with World() as world:
        world.importer.files[HubPlace] = PARTS
        await world.create("Model", "split", {"source": {"hub": {"repository": "a/b"}}}, namespace="")
        await world.until_ready("Model", "split", namespace="")
        await world.create("Endpoint", "chat", {**SPEC, "model": "split"})
        said = await world.until_reason("Endpoint", "chat", "EngineUnfit")
        assert "takes one file, and Model split has 2" in said["message"]


async def test_what_is_no_adapter_of_the_model_is_none() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {**SPEC, "adapters": ["smol"]})
        said = await world.until_reason("Endpoint", "chat", "AdapterUnfit")
        assert "Model smol is no adapter of Model smol" in said["message"]


async def test_the_engine_gets_what_its_intent_says() -> None:
    other, file = "sha256:" + "cd" * 32, "sha256:" + "ef" * 32
    intent = EndpointIntent(
        model=DIGEST,
        alias="chat",
        slots=1,
        context_tokens=64,
        cores_milli=1000,
        memory_bytes=GIB,
        engine="vllm",
        arguments={"enable-prefix-caching": False},
        adapters=[AdapterIntent(name="greet", digest=other)],
        files=[FileIntent(path="model.safetensors", digest=file)],
    )
    bench = HostBench(EndpointHost(), intent.dump(), kind="Endpoint")
    bench.engine.sorts = ("vllm",)
    specs = started(bench)
    await bench.until_phase("Running")
    [spec] = specs
    assert (spec.engine, spec.arguments) == ("vllm", {"enable-prefix-caching": False})
    assert [(one.name, one.path.name) for one in spec.adapters] == [("greet", "cd" * 32)]
    assert spec.files == {"model.safetensors": Path("/fake/content") / ("ef" * 32)}
    assert bench.content.pins["c-1"] == (DIGEST, file, other)


async def test_a_host_without_the_engine_says_so() -> None:
    intent = EndpointIntent(
        model=DIGEST, alias="chat", slots=1, context_tokens=64, cores_milli=1000, memory_bytes=GIB, engine="vllm"
    )
    bench = HostBench(EndpointHost(), intent.dump(), kind="Endpoint")
    await bench.until_reason("EngineMissing")
    assert bench.status.message == "no engine vllm is installed on this host"


def loading(*names: str) -> EndpointIntent:
    adapters = [AdapterIntent(name=name, digest="sha256:" + "cd" * 32) for name in names]
    return EndpointIntent(
        model=DIGEST,
        alias="chat",
        slots=1,
        context_tokens=64,
        cores_milli=1000,
        memory_bytes=GIB,
        engine="vllm",
        adapters=adapters,
    )


async def test_adapters_come_and_go_while_it_runs() -> None:
    bench = HostBench(EndpointHost(), loading("one", "two").dump(), kind="Endpoint")
    bench.engine.sorts = ("vllm",)
    await bench.until_phase("Running")
    pid = bench.status.pid
    for names in (("two", "three"), ("two", "three"), (), ("one",)):
        bench.amend(**{"adapters": [], **loading(*names).dump()})
        await bench.step()
        assert (bench.status.phase, bench.status.pid, bench.status.restarts) == ("Running", pid, 0)
        assert bench.engine.models["c-1"].adapters == [*names]
        assert [*bench.status.detail.get("adapters", ())] == [*names]
    bench.amend(adapters=[{"name": "one", "digest": "sha256:" + "ef" * 32}])
    await bench.step()
    assert bench.engine.models["c-1"].adapters == ["one"]
    assert bench.content.fetched[-1] == "sha256:" + "ef" * 32, "another content of the same name is loaded anew"


async def test_an_adapter_that_does_not_come_ends_nothing() -> None:
    bench = HostBench(EndpointHost(), loading().dump(), kind="Endpoint")
    bench.engine.sorts = ("vllm",)
    await bench.until_phase("Running")
    address = bench.status.address
    bench.content.refuse = DriverError("FetchFailed", "no")
    bench.amend(**loading("one").dump())
    await bench.step()
    assert (bench.status.phase, bench.status.reason, bench.status.address) == ("Running", "FetchFailed", address)
    bench.content.refuse = None
    await bench.step()
    assert (bench.status.reason, bench.engine.models["c-1"].adapters) == ("", ["one"])


async def test_an_endpoint_of_vllm_may_change_its_adapters() -> None:
    engine = {"name": "vllm", "arguments": {"enable-lora": True}}
    before, after = endpoint(engine=engine), endpoint(engine=engine, adapters=["greet"])
    assert [*validate(after, before)] == []
    async with World() as world:
        world.importer.format = "safetensors"
        for host in world.hosts.values():
            host.engine.sorts = ("vllm",)
        source = {"wheel": {"package": "x", "version": "1", "member": "m"}}
        await world.create("Model", "safe", {"source": source, "sha256": MODEL_SHA}, namespace="")
        world.importer.adapter = AdapterFacts()
        adapter = {"source": source, "sha256": MODEL_SHA, "adapterOf": "safe"}
        await world.create("Model", "greet", adapter, namespace="")
        await world.create("Endpoint", "chat", {**SPEC, "model": "safe", "engine": engine})
        await world.until_ready("Endpoint", "chat")
        await world.patch("Endpoint", "chat", adapters=["greet"])

        async def told() -> bool:
            [claim] = await world.bodies("Claim")
            return [one["name"] for one in claim["spec"]["intent"].get("adapters", ())] == ["greet"]

        await world.until(told)
        assert sum(host.engine.starts for host in world.hosts.values()) == 1


async def test_no_replica_goes_where_its_engine_is_not() -> None:
    async with World(hosts=2) as world:
        world.importer.format = "safetensors"
        source = {"wheel": {"package": "x", "version": "1", "member": "m"}}
        await world.create("Model", "safe", {"source": source, "sha256": MODEL_SHA}, namespace="")
        await world.until_ready("Model", "safe", namespace="")
        for name, engines in (("h1", []), ("h2", ["none"])):
            said = {**(await world.object("Host", name, namespace="") or {})}
            del said["metadata"]["resourceVersion"]
            found = world.hosts[name].inventory.model_copy(update={"engines": engines})
            said["status"]["report"] = found.dump()
            await world.store.objects.replace(said, Writer("agent", name), part="report")
        await world.create("Endpoint", "chat", {"model": "safe", "flavor": "serve"})
        said = await world.until_reason("Endpoint", "chat", "Unschedulable")
        assert "2 hosts: without engine vllm" in said["message"]
        await world.create("Endpoint", "plain", {"model": "smol", "flavor": "serve", "replicas": 2})
        await world.until_ready("Endpoint", "plain")
        assert {one["spec"]["host"] for one in await world.bodies("Claim")} == {"h1"}, "that names none has llama.cpp"
        host = {**(await world.object("Host", "h2", namespace="") or {})}
        del host["metadata"]["resourceVersion"]
        world.hosts["h2"].engine.sorts = ("vllm",)
        host["status"]["report"] = world.hosts["h2"].inventory.model_copy(update={"engines": ["vllm"]}).dump()
        await world.store.objects.replace(host, Writer("agent", "h2"), part="report")
        await world.until_ready("Endpoint", "chat")
