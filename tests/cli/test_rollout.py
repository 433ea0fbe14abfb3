"""``bessemer rollout``: how far an update is, what was before, and back."""

from __future__ import annotations

import re
import shlex
from typing import Any

import orjson
import pytest

from bessemer.cli.work.calling import call, described
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import Key
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.endpoint.revisions import marks_of, remembered
from bessemer.kinds.inference.endpoint.spec import Endpoint
from tests.cli.conftest import PROJECT, Cli

PLACE = ("-n", PROJECT)
SPEC = {"model": "smol", "flavor": "small", "replicas": 2}


def body_of(cli: Cli, name: str) -> dict[str, Any]:
    stored = cli.do(lambda w: w.store.objects.get(Key("Endpoint", PROJECT, name)))
    body: dict[str, Any] = orjson.loads(stored.body)
    return body


def look(cli: Cli, name: str, *, answering: int, old: int = 0, trouble: str = "") -> None:
    """What a turn of the controller leaves, with so many replicas of the new revision that answer."""
    body = body_of(cli, name)
    endpoint = Endpoint.model_validate(body)
    labels, annotations = marks_of(Endpoint.model_validate({**body, "spec": SPEC}))
    metadata = {"name": "endpoint-roll-0", "uid": "c-0", "labels": labels, "annotations": annotations}
    claim = {"host": "h1", "tenant": "acme", "workload": {"kind": "Endpoint", "name": name, "uid": "e", "replica": 0}}
    known = remembered(endpoint, [Claim.model_validate({"metadata": metadata, "spec": claim})], now=1_750_000_000.0)
    newest = known[-1].revision if known else ""
    replicas = [{"replica": n, "claim": f"c{n}", "host": "h1", "phase": "Running"} for n in range(answering + old)]
    for n, one in enumerate(replicas if known else []):
        one["revision"] = newest if n < answering else "before"
    said = {"type": "Progressing", "status": "False" if trouble else "True", "reason": trouble or "Updating"}
    body["status"] = {
        **body.get("status", {}),
        "observedGeneration": body["metadata"]["generation"],
        "revision": newest,
        "revisions": [one.dump() for one in known],
        "replicas": replicas,
        "updatedReplicas": answering if known else 0,
        "readyReplicas": 2,
        "wantedReplicas": 2,
        "conditions": [{**said, "message": "it hurts", "lastTransitionTime": "2025-06-15T15:06:40Z"}],
    }
    del body["metadata"]["resourceVersion"]
    cli.do(lambda w: w.store.objects.replace(body, CONTROLLER, part="status"))


def test_how_far_an_update_is_and_back(cli: Cli) -> None:
    cli.do(lambda w: w.create(f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/endpoints", {
        "metadata": {"name": "roll"}, "spec": SPEC,
    }))  # fmt: skip
    early = cli("rollout", "status", "roll", *PLACE, "--no-watch")
    assert (early.code, "has yet to be looked at" in early.err) == (1, True)
    look(cli, "roll", answering=2)
    whole = cli("rollout", "status", "endpoint/roll", *PLACE)
    assert (whole.code, whole.raw) == (0, "endpoint/roll: 2 of 2 replicas answer, of one revision\n")
    assert "one revision alone" in cli("rollout", "history", "roll", *PLACE).err
    assert cli("rollout", "undo", "roll", *PLACE).code == 1

    changed = body_of(cli, "roll")
    changed["spec"]["slots"] = 9
    cli.do(lambda w: w.store.objects.replace(changed, Writer("user", "mia")))
    look(cli, "roll", answering=1, old=2)
    midway = cli("rollout", "status", "roll", *PLACE, "--no-watch")
    told = cli("describe", "endpoint", "roll", *PLACE).raw
    assert re.search(
        r"\nRevision:  [0-9a-f]{10}, number 2, since 2025-\S+Z\nRollout:   1 of 2 replicas are of rev", told
    )
    assert (midway.code, "1 of 2 replicas are of revision" in midway.raw) == (1, True)
    look(cli, "roll", answering=0, old=2, trouble="NewReplicaFails")
    assert cli("describe", "endpoint", "roll", *PLACE).raw.splitlines()[-1].endswith("; NewReplicaFails: it hurts")
    stuck = cli("rollout", "status", "roll", *PLACE)
    assert stuck.code == 1
    assert "NewReplicaFails: it hurts; bessemer rollout undo roll goes back" in stuck.err

    listed = cli("rollout", "history", "roll", *PLACE).raw.splitlines()
    assert [line.split()[0] for line in listed] == ["NUMBER", "1", "2"]
    assert "4 x 2048 tokens" in listed[1]
    assert cli("rollout", "undo", "roll", *PLACE, "--to", "7").code == 1
    assert "revision 1" in cli("rollout", "undo", "roll", *PLACE).raw
    assert body_of(cli, "roll")["spec"]["slots"] == 4
    assert cli("rollout", "restart", "roll", *PLACE).code == 0
    assert body_of(cli, "roll")["spec"]["restartedAt"].endswith("Z")


def test_what_has_no_replicas_has_no_rollout(cli: Cli) -> None:
    cli.do(lambda w: w.create(f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/endpoints", {
        "metadata": {"name": "split"}, "spec": {"backends": [{"endpoint": "roll"}]},
    }))  # fmt: skip
    for verb in ("status", "restart"):
        assert "others answer for it" in cli("rollout", verb, "split", *PLACE).err
    assert cli("rollout", "history", "split", *PLACE).code == 1
    assert cli("describe", "endpoint", "split", *PLACE).raw.splitlines()[-1] == "Answered:  by roll 100 %"
    assert "only endpoints" in cli("rollout", "status", "instance/vm", *PLACE).err


def test_what_a_service_elsewhere_is_shown_is_set_and_never_printed(cli: Cli) -> None:
    external = {"url": "https://api.example.org/v1", "model": "big-1"}
    cli.do(lambda w: w.create(f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/endpoints", {
        "metadata": {"name": "big"}, "spec": {"external": external},
    }))  # fmt: skip
    said = cli("endpoint", "secret", "big", *PLACE, stdin="sk-one\n")
    assert (said.code, said.raw) == (0, "endpoint/big keeps it sealed\n")
    assert "sk-one" not in cli("get", "endpoint", "big", "-o", "yaml", *PLACE).raw
    assert "bessemer.dev/external-secret" in body_of(cli, "big")["metadata"]["annotations"]
    assert cli("endpoint", "secret", "big", *PLACE).code == 1, "nothing was typed"
    assert cli("endpoint", "secret", "big", "--remove", *PLACE).code == 0
    assert "bessemer.dev/external-secret" not in body_of(cli, "big")["metadata"].get("annotations", {})


def test_keys_of_the_bucket_of_its_prompts_are_set_and_never_printed(cli: Cli) -> None:
    external = {"url": "https://api.example.org/v1", "model": "big-1"}
    logged = {"s3": {"bucket": "logs", "endpoint": "https://s3.example.org"}}
    cli.do(lambda w: w.create(f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/endpoints", {
        "metadata": {"name": "told"}, "spec": {"external": external, "logging": logged},
    }))  # fmt: skip
    said = cli("endpoint", "secret", "told", "--logging", *PLACE, stdin="AKIA\nwo/rd\n")
    assert (said.code, said.raw) == (0, "endpoint/told keeps it sealed\n")
    assert "wo/rd" not in cli("get", "endpoint", "told", "-o", "yaml", *PLACE).raw
    assert "bessemer.dev/logging-keys" in body_of(cli, "told")["metadata"]["annotations"]
    words = "Logged:    to s3://logs/ at https://s3.example.org, kept for 30 days"
    assert words in cli("describe", "endpoint", "told", *PLACE).raw.splitlines()
    assert cli("endpoint", "secret", "told", "--logging", *PLACE, stdin="AKIA\n").code == 1
    assert cli("endpoint", "secret", "told", "--logging", "--remove", *PLACE).code == 0
    assert "bessemer.dev/logging-keys" not in body_of(cli, "told")["metadata"].get("annotations", {})


@pytest.mark.parametrize(
    ("task", "path", "field"), [("generate", "chat/completions", "messages"), ("embed", "embeddings", "input")]
)
def test_how_an_endpoint_is_called(task: str, path: str, field: str) -> None:
    place = {"name": "chat", "namespace": PROJECT}
    gateway = "http://127.0.0.1:7080/v1"
    words = shlex.split(" ".join(call({"metadata": place, "spec": {"task": task}}, gateway)[1:]).replace("\\ ", ""))
    assert words[:4] == ["curl", f"{gateway}/{path}", "-H", "Authorization: Bearer $BESSEMER_KEY"]
    said = orjson.loads(words[-1])
    assert (said["model"], field in said) == ("chat", True)


def test_who_answers_and_why_so_many_is_said_in_words() -> None:
    place = {"name": "chat", "namespace": PROJECT, "generation": 1}
    split = {"backends": [{"endpoint": "old", "weight": 3}, {"endpoint": "new"}], "fallbacks": ["spare"]}
    assert described({"metadata": place, "spec": split}, "").splitlines() == [
        "Answered:  by old 75 %, new 25 %",
        "Else:      by spare, where nobody answers",
    ]
    outer = {"external": {"url": "https://api.example.org/v1", "model": "big-1"}}
    assert described({"metadata": place, "spec": outer}, "") == "Answered:  by big-1 at https://api.example.org/v1"
    scaling = {"wanted": 3, "since": "2026-01-01T00:00:00Z", "why": "6 of 8 slots are busy"}
    status = {"observedGeneration": 1, "readyReplicas": 2, "wantedReplicas": 3, "scaling": scaling}
    spec = {"model": "smol", "adapters": ["poems"]}
    assert described({"metadata": place, "spec": spec, "status": status}, "").splitlines() == [
        "Rollout:   2 of 3 replicas answer, of one revision",
        "Scaling:   3 wanted since 2026-01-01T00:00:00Z; 6 of 8 slots are busy",
        "Adapters:  as chat:poems",
    ]
    assert "Call it:" in described({"metadata": place, "spec": spec}, "http://127.0.0.1:7080/v1")
