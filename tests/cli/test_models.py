"""``bessemer model``: sources in words, a model brought in, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bessemer.api.ca import Peer
from bessemer.cli.work.models import name_of, source_of
from bessemer.core.errors import Invalid
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.drivers.weights.fake import SMALL
from tests.api.world import ADMIN
from tests.cli.conftest import PROJECT, Cli


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("hub:HF/SmolLM2-135M@v1", "smollm2-135m", {"hub": {"repository": "HF/SmolLM2-135M", "revision": "v1"}}),
        ("hub:a/B.c", "b-c", {"hub": {"repository": "a/B.c"}}),
        ("s3://models/llama/8b/", "8b", {"s3": {"bucket": "models", "prefix": "llama/8b/"}}),
        ("https://a.example/m-Q4.gguf", "m-q4", {"http": {"url": "https://a.example/m-Q4.gguf"}}),
        ("wheel:p==1.0/p/m.gguf", "m", {"wheel": {"package": "p", "version": "1.0", "member": "p/m.gguf"}}),
        ("/srv/models/x", "x", {"path": {"path": "/srv/models/x"}}),
    ],
)  # fmt: skip
def test_a_source_is_read(text: str, name: str, source: dict[str, Any]) -> None:
    assert (name_of(text), source_of(text, files=[])) == (name, source)


@pytest.mark.parametrize("text", ["smollm2", "wheel:p", ""])
def test_what_is_no_source_is_said(text: str) -> None:
    with pytest.raises(Invalid):
        source_of(text, files=[])


def test_a_model_is_added_shown_and_listed(cli: Cli) -> None:
    added = cli("model", "add", "hub:tiny/llama@v2", "--file", "*.gguf", "--licence", "MIT", "--no-wait")
    assert (added.code, added.raw) == (0, "model/llama created\n")
    again = cli("model", "add", "hub:tiny/llama", "--no-wait")
    assert again.code == 1
    assert "choose another --name" in again.err
    body = json.loads(cli("model", "show", "llama", "-o", "json").raw)
    assert body["spec"]["source"] == {"hub": {"repository": "tiny/llama", "revision": "v2", "files": ["*.gguf"]}}
    body["status"] = {"phase": "Ready", "digest": "sha256:" + "ab" * 32, "sizeBytes": 98_000_000, "facts": SMALL.dump()}
    del body["metadata"]["resourceVersion"]
    cli.do(lambda w: w.store.objects.replace(body, CONTROLLER, part="status"))
    said = cli("model", "show", "llama").raw
    for words in (
        "hub:tiny/llama@v2 [*.gguf]",
        "gguf Q4_1",
        "134,515,008",
        "9 (3 of keys, 64 wide)",
        "8,192 tokens",
        "MIT",
    ):
        assert words in said
    assert "llama" in cli("model", "list").raw


def test_who_waits_is_told_what_it_waits_for(cli: Cli) -> None:
    """Nobody controls this world: time is up at once."""
    said = cli("model", "add", "hub:tiny/slow", "--timeout", "0.001")
    assert said.code == 1
    assert "nobody has looked at it yet; it stays: bessemer model show slow" in said.err
    assert json.loads(cli("model", "show", "slow", "-o", "json").raw)["spec"]["source"]["hub"]["revision"] == "main"


def test_a_token_is_sealed_and_never_shown(cli: Cli) -> None:
    cli("model", "add", "hub:tiny/gated", "--no-wait")
    set_ = cli("model", "token", "gated", stdin="hf_sesame\n")
    assert (set_.code, set_.raw) == (0, "model/gated keeps it sealed\n")
    uid = cli.do(lambda w: w.store.objects.get(Key("Model", "", "gated"))).uid

    def kept() -> dict[str, str]:
        found: dict[str, str] = json.loads(cli.do(lambda w: w.store.sealed.get(uid, "source")) or b"null")
        return found

    assert kept() == {"token": "hf_sesame", "audience": "hub:tiny/gated"}
    assert "sesame" not in cli("model", "show", "gated", "-o", "json").raw
    cli("model", "token", "gated", "--s3", stdin="AKIA\nword\n")
    assert kept() == {"accessKey": "AKIA", "secretKey": "word", "audience": "hub:tiny/gated"}
    assert cli("model", "token", "gated", "--remove").code == 0
    assert kept() == {}
    assert cli("model", "token", "gated", stdin="\n").code == 1
    assert cli("model", "token", "none", stdin="x\n").code == 1
    assert cli("model", "token", "gated", stdin="a\x07b\n").code == 1


def test_terms_are_accepted_by_who_says_so_and_by_nobody_else(cli: Cli) -> None:
    cli("model", "add", "hub:tiny/terms", "--no-wait")
    assert "--licence" in cli("model", "accept", "terms").err
    said = cli("model", "accept", "terms", "--licence", "llama3.1")
    assert (said.code, said.raw) == (0, "model/terms: admin accepted llama3.1\n")
    body = json.loads(cli("model", "show", "terms", "-o", "json").raw)
    first = body["spec"]["accepted"]
    assert (first["by"], first["at"]) == ("admin", "2025-06-15T15:06:40Z")
    forged = {"licence": "llama3.1", "by": "mia", "at": "2001-01-01T00:00:00Z"}
    path, media = "/apis/bessemer.dev/v1alpha1/models/terms", "application/merge-patch+json"
    boss = Peer("boss", ("system:masters",), "")
    for who, terms, by in (
        (ADMIN, forged, "admin"),
        (boss, forged, "admin"),
        (boss, forged | {"licence": "v2"}, "boss"),
    ):
        change = {"spec": {"accepted": terms}}
        reply = cli.do(lambda w, who=who, change=change: w.call("PATCH", path, change, peer=who, media=media))
        assert (reply.code, reply.json["spec"]["accepted"]["by"]) == (200, by)
        assert reply.json["spec"]["accepted"]["at"] != forged["at"]
    assert "v2, by boss at" in cli("model", "show", "terms").raw


def test_terms_accepted_of_one_source_are_not_those_of_another(cli: Cli) -> None:
    path, media = "/apis/bessemer.dev/v1alpha1/models/moved", "application/merge-patch+json"
    boss = Peer("boss", ("system:masters",), "")

    def change(peer: Peer, **spec: Any) -> Any:
        reply = cli.do(lambda w: w.call("PATCH", path, {"spec": spec}, peer=peer, media=media))
        assert reply.code == 200
        return reply.json["spec"].get("accepted", {}).get("by")

    cli("model", "add", "hub:tiny/moved", "--no-wait")
    cli("model", "accept", "moved", "--licence", "llama3.1")
    assert change(boss, source={"hub": {"revision": "v2"}}) == "admin"
    assert change(boss, source={"hub": {"repository": "tiny/other"}}) is None, "nobody has accepted those"
    assert change(boss, accepted={"licence": "llama3.1"}) == "boss"
    assert change(ADMIN, source={"hub": {"repository": "tiny/third"}}, accepted={"licence": "v3"}) == "admin"


def test_a_projects_model_is_added_shown_and_listed_there(cli: Cli) -> None:
    of = ("-n", PROJECT)
    added = cli("model", "add", "hub:acme/tuned", *of, "--shared", "--no-wait")
    assert (added.code, added.raw) == (0, "model/tuned created\n")
    body = json.loads(cli("model", "show", "tuned", *of, "-o", "json").raw)
    assert (body["kind"], body["metadata"]["namespace"], body["spec"]["shared"]) == ("ProjectModel", PROJECT, True)
    assert "with the tenant's other projects" in cli("model", "show", "tuned", *of).raw
    assert "tuned" in cli("model", "list", *of).raw
    assert "tuned" not in cli("model", "list").raw
    assert cli("model", "show", "tuned").code == 1
    said = cli("model", "accept", "tuned", *of, "--licence", "MIT")
    assert (said.code, said.raw) == (0, "model/tuned: admin accepted MIT\n")
    assert cli("model", "token", "tuned", *of, stdin="hf_sesame\n").code == 0
    refused = cli("model", "add", "/srv/models/x", *of, "--no-wait")
    assert refused.code == 1
    assert "the control plane's machine" in refused.err
    assert "-n PROJECT" in cli("model", "add", "hub:acme/tuned", "--shared", "--no-wait").err
