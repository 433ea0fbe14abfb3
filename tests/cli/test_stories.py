"""What the commands print, told as stories: each is a transcript in ``golden/``, compared line by line.

``BESSEMER_GOLDEN=write`` writes them anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bessemer.core.asking import Allocation
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.quota import Quota
from bessemer.core.resource import Key
from bessemer.core.values import ClaimSpec, UsageBatch, UsageRecord, WorkloadRef
from tests.api.world import PASSWORD, World
from tests.cli.conftest import PROJECT, START, Cli
from tests.cli.test_namesakes import happen
from tests.oracle import program

SPENDER = "other--lab"
"""A project in which no other story happens, so that its bill does not depend on what was told before."""
GOLDEN = Path(__file__).with_name("golden")
VM = """\
apiVersion: bessemer.dev/v1alpha1
kind: Instance
metadata: {name: vm, labels: {tier: test}}
spec: {flavor: small, image: micro}
"""
SINCE = {"lastTransitionTime": "2025-06-15T15:06:40Z"}
WAITS = {
    "phase": "Pending",
    "phaseSince": "2025-06-15T15:06:40Z",
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Unschedulable",
            "message": "3 hosts: short of 2 cores; 1 host: has no GPU",
            **SINCE,
        },
        {
            "type": "Stuck",
            "status": "True",
            "reason": "Unschedulable",
            "message": "It waits for longer than 600 s.",
            **SINCE,
        },
    ],
    "reasons": [
        {"code": "NoCores", "hosts": 3, "text": "short of 2 cores"},
        {"code": "NoDevices", "hosts": 1, "text": "has no GPU"},
    ],
    "remedy": "ask for 1 core less",
}


class Story:
    """Commands in a row, and what was said to each."""

    def __init__(self, cli: Cli, name: str) -> None:
        self._cli = cli
        self._golden = GOLDEN / f"{name}.txt"
        self._said: list[str] = []

    def __call__(self, *words: str, stdin: str = "") -> None:
        self._said.append(self._cli(*words, stdin=stdin).transcript)

    def check(self) -> None:
        """The whole is the golden text, line by line."""
        text = "\n".join(self._said)
        if os.environ.get("BESSEMER_GOLDEN") == "write":
            GOLDEN.mkdir(exist_ok=True)
            self._golden.write_text(text)
        assert text.splitlines() == self._golden.read_text().splitlines()


@pytest.fixture
def tell(cli: Cli, request: pytest.FixtureRequest) -> Story:
    """A story of the test's name."""
    return Story(cli, request.node.name.removeprefix("test_"))


def test_objects(cli: Cli, tell: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vm.yaml").write_text(VM)
    place = ("-n", PROJECT)
    tell("apply", "-f", "vm.yaml", *place)
    tell("apply", "-f", "-", *place, stdin=VM)
    tell("apply", "-f", "-", *place, "--dry-run=server", stdin=VM.replace("small", "small, running: false"))
    tell("get", "instances", *place)
    tell("get", "vm", "-A", "-o", "wide")
    tell("get", "instances", "-A", "-l", "tier=test", "-o", "name")
    tell("get", "instances", "-A", "-l", "tier=other")
    tell("get", "instance", "vm", *place, "-o", "yaml")
    tell("get", "instance/vm", *place, "-o", "json")
    cli.status(Key("Instance", PROJECT, "vm"), **WAITS)
    event = "3 hosts: short of 2 cores"
    happen(cli, "vm", message=event)
    tell("get", "instances", "-A")
    tell("describe", "instance", "vm", *place)
    tell("why", "instance", "vm", *place)
    tell("events", "instance", "vm", *place)
    tell("events", *place)
    tell("events", "-n", "other--lab")
    tell("wait", "instance", "vm", *place, "--for", "phase=Pending")
    tell("stop", "vm", *place)
    tell("start", "vm", *place)
    tell("delete", "instance", "vm", *place, "--no-wait")
    tell.check()


def test_people(tell: Story) -> None:
    tell("user", "add", "ada", stdin="short\n")
    tell("user", "add", "ada", "--display-name", "Ada", stdin="correct horse battery\n")
    tell("user", "link", "ada")
    tell("user", "password", "ada", stdin="another horse battery\n")
    tell("user", "disable", "ada")
    tell("get", "users")
    tell("login", "mia", stdin=f"{PASSWORD}\n")
    tell("whoami")
    tell("key", "create", "app", "-n", PROJECT, "--endpoint", "chat")
    tell("get", "apikeys", "-A")
    tell("key", "revoke", "app", "-n", PROJECT)
    tell.check()


def test_roles(tell: Story) -> None:
    tell("role", "list")
    tell("role", "grant", "reader", "Group:corp:audit", "--tenant", "acme")
    tell("role", "grant", "member", "new", "-n", PROJECT)
    tell("role", "grant", "member", "eve", "-n", PROJECT)
    tell("role", "grant", "member", "eve", "-n", PROJECT)
    tell("role", "grant", "operator", "new")
    tell("role", "grant", "nonsense", "new", "--tenant", "acme")
    tell("role", "grant", "reader", "new", "-n", PROJECT, "--on", "instance/none")
    tell("get", "rolebindings")
    tell("role", "who-can", "delete", "instances", "-n", PROJECT)
    tell("role", "who-can", "get", "instance/log", "-n", PROJECT)
    tell("role", "who-can", "create", "hosts")
    tell("role", "who-can", "create", "instance/log", "-n", PROJECT)
    tell("role", "revoke", "member", "new", "-n", PROJECT)
    tell("role", "revoke", "member", "eve", "-n", PROJECT)
    tell("role", "revoke", "member", "eve", "-n", PROJECT)
    tell("role", "revoke", "reader", "rob", "--tenant", "acme")
    tell.check()


def test_hosts(tell: Story) -> None:
    tell("host", "enrol", "gpu-07")
    for verb in ("cordon", "uncordon", "fence", "revoke"):
        tell("host", verb, "gpu-07")
    tell("get", "hosts")
    tell.check()


def test_money(cli: Cli, tell: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli.do(_spend)
    tell("quota", SPENDER)
    tell("quota", "other")
    tell("quota")
    window = ("-n", SPENDER, "--since", "2025-06-15", "--until", "2025-06-16")
    tell("invoice", *window)
    tell("invoice", *window, "--export", "rows.json")
    tell("invoice", "-n", PROJECT, "--since", "2025-06-15T15:00:00Z", "--until", "2025-06-15T16:00:00Z")
    tell.check()
    bill = json.loads(cli("invoice", *window, "-o", "json").out)
    rows = Path("rows.json")
    assert program.total(rows) == program.shown(bill["totalMicro"]) == "EUR 2.593636"
    assert program.total(program.falsified(rows, "tokens", outputTokens=345_000)) == "EUR 2.593500"
    assert program.total(program.falsified(rows, "open", milliCores=2001)) == "EUR 2.593656"


def test_refusals(tell: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.yaml").write_text("")
    place = ("-n", PROJECT)
    tell("get", "gadgets")
    tell("get", "instance", "vm")
    tell("get", "instance", "nope", *place)
    tell("get", "instances", "-n", "acme--lap")
    tell("key", "create", "app", "-n", "acme--lap")
    tell("get", "hosts", "-o", "xml")
    tell("get", "hosts", "-l", "tier")
    tell("apply", "-f", "nowhere.yaml")
    tell("apply", "-f", "empty.yaml")
    tell("apply", "-f", "-", stdin="a: [")
    tell("apply", "-f", "-", stdin="kind: Instance")
    tell("apply", "-f", "-", *place, stdin=VM.replace("small", "9, cpus: 3"))
    tell("apply", "-f", "-", *place, stdin=VM.replace("name: vm", "name: V_M"))
    tell("delete")
    tell("why", "instance")
    tell("wait", "project", PROJECT, "--for", "sunshine")
    tell("wait", "project", PROJECT, "--timeout", "0.2")
    tell("key", "create", "app")
    tell("quota", "nobody")
    tell("invoice")
    tell("invoice", *place, "--since", "yesterday")
    tell("invoice", *place, "--since", "2025-06-16", "--until", "2025-06-15")
    tell("login", "mia", stdin="wrong\n")
    tell("--token", "bss_none.none", "whoami")
    tell.check()


def _vm() -> Key:
    return Key("Instance", PROJECT, "vm")


async def _spend(w: World) -> None:
    """An hour and a half of a claim of one GPU, some of it deploying, and a batch of tokens."""
    await w.create("/apis/bessemer.dev/v1alpha1/priceplans", _PLAN)
    body = {"metadata": {"name": "chat"}, "spec": {"model": "smol", "flavor": "one-gpu"}}
    made = await w.create(f"/apis/bessemer.dev/v1alpha1/namespaces/{SPENDER}/endpoints", body)
    uid = made["metadata"]["uid"]
    store, host = w.store, "gpu-01"
    room = NumaNode(id=0, cores=8, threads=16, memory_bytes=64 << 30)
    gpu = Device(id="gpu-0", kind="gpu", model="H100-SXM5-80GB")
    await store.capacity.declare(host, Inventory(numa=[room], devices=[gpu]))
    await store.capacity.set_quota(f"project/{SPENDER}", Quota(milli_cores=4000, devices={"*": 2}))
    spec = ClaimSpec(
        host=host,
        tenant="other",
        workload=WorkloadRef(kind="Endpoint", name="chat", uid=uid),
        devices=["gpu-0"],
        device_model="H100-SXM5-80GB",
        allocations=[Allocation(numa_node=0, milli_cores=2000, memory_bytes=8 << 30)],
        flavor="one-gpu",
    )
    key = Key("Claim", SPENDER, "endpoint-chat-0")
    claim = (await store.capacity.take([(key, spec, {})], CONTROLLER))[0]
    clock = w.clock
    await clock.advance(1800)  # type: ignore[attr-defined]
    metadata = {"name": key.name, "namespace": SPENDER}
    said = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Claim", "metadata": metadata}
    agent = Writer("agent", host)
    await store.objects.replace({**said, "status": {"phase": "Running"}}, agent, part="status")
    record = UsageRecord(
        at=START + 1900,
        request_id="r",
        project=SPENDER,
        endpoint="chat",
        endpoint_uid=uid,
        api_key="app",
        model="smol",
        status=200,
        input_tokens=1_200_000,
        cached_input_tokens=200_000,
        output_tokens=345_678,
    )
    await store.ledger.settle(UsageBatch(gateway_uid="g", spool_uid="s", first_sequence=1, records=[record]))
    await clock.advance(3600)  # type: ignore[attr-defined]
    await store.capacity.retire(claim.key, CONTROLLER)
    await store.objects.replace({**said, "status": {"phase": "Gone"}}, agent, part="status")
    await store.capacity.release(claim.key, CONTROLLER)


_PLAN = {
    "metadata": {"name": "standard"},
    "spec": {
        "currency": "EUR",
        "rates": {
            "deviceHour": {"H100-SXM5-80GB": 2_400_000, "*": 1_200_000},
            "coreHour": 20_000,
            "memoryGibHour": 4_000,
            "millionInputTokens": 50_000,
            "millionCachedInputTokens": 12_500,
            "millionOutputTokens": 200_000,
        },
    },
}
