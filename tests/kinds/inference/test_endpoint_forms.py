"""What an Endpoint may be: replicas of its own, a choice among endpoints, a service elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bessemer.core.resource import Metadata
from bessemer.kinds.inference.endpoint import KIND
from bessemer.kinds.inference.endpoint.spec import Endpoint, EndpointSpec, validate, wanted_of
from tests.kinds.world import World

REPLICAS = {"model": "smol", "flavor": "serve"}
SPLIT = {"backends": [{"endpoint": "one", "weight": 9}, {"endpoint": "two"}]}
OUTER = {"external": {"url": "https://api.example.org/v1", "model": "big-1"}}


def wrong(**spec: Any) -> dict[str, str]:
    """What is said of a spec, by field."""
    endpoint = Endpoint(metadata=Metadata(name="chat"), spec=EndpointSpec.model_validate(spec))
    return {cause.field: cause.message for cause in validate(endpoint, None)}


@pytest.mark.parametrize("spec", [REPLICAS, SPLIT, OUTER])
def test_each_form_is_one(spec: dict[str, Any]) -> None:
    assert wrong(**spec) == {}
    said = EndpointSpec.model_validate(spec)
    assert EndpointSpec.model_validate(said.dump()) == said


@pytest.mark.parametrize("spec", [{}, {**REPLICAS, **SPLIT}, {**SPLIT, **OUTER}, {**REPLICAS, **OUTER}])
def test_none_and_several_are_refused(spec: dict[str, Any]) -> None:
    assert "one alone" in wrong(**spec)["spec"]


def test_what_a_form_lacks_or_has_too_much_is_named() -> None:
    assert "spec.flavor" in wrong(model="smol")
    assert "spec.model" in wrong(flavor="serve")
    assert "spec.adapters" in wrong(**SPLIT, adapters=["lora"])
    assert "spec.engine" in wrong(**OUTER, engine={"name": "vllm"})
    assert "spec.update" in wrong(**REPLICAS, update={"maxSurge": 0})
    assert wrong(**REPLICAS, update={"maxSurge": 0, "maxUnavailable": 1}) == {}


def test_what_it_is_for_is_said_by_whoever_answers() -> None:
    assert wrong(**REPLICAS, task="embed") == wrong(**OUTER, task="embed") == {}
    assert "spec.task" in wrong(**SPLIT, task="embed")
    assert "task" not in EndpointSpec.model_validate({**REPLICAS, "task": "generate"}).dump()


def test_backends_and_fallbacks_are_others_and_each_once() -> None:
    assert "spec.backends[0].endpoint" in wrong(backends=[{"endpoint": "chat"}])
    assert "spec.backends[1].endpoint" in wrong(backends=[{"endpoint": "one"}, {"endpoint": "one"}])
    assert "no weight" in wrong(backends=[{"endpoint": "one", "weight": 0}])["spec.backends"]
    assert wrong(**REPLICAS, fallbacks=["one", "two"]) == {}
    assert "spec.fallbacks[0]" in wrong(**REPLICAS, fallbacks=["chat"])
    assert "spec.fallbacks[1]" in wrong(**OUTER, fallbacks=["one", "one"])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://api.example.org/v1",
        "api.example.org/v1",
        "https:///v1",
        "https://me:secret@api.example.org/v1",
        "https://api.example.org/v1?key=secret",
        "https://api.example.org/v1#there",
        "https://api.example.org/v1/../admin",
        "https://api.example.org/a\r\nhost: b",
        "https://api.example.org:0/v1",
        "https://api.example.org:99999/v1",
        "https://[::1",
    ],
)
def test_a_url_is_a_plain_one(url: str) -> None:
    assert "spec.external.url" in wrong(external={"url": url, "model": "big-1"})


def test_what_says_nothing_is_left_out() -> None:
    new = {"backends", "external", "fallbacks", "update"}
    assert not new & EndpointSpec.model_validate(REPLICAS).dump().keys()
    assert not {"model", "flavor"} & EndpointSpec.model_validate(SPLIT).dump().keys()


def test_only_replicas_of_its_own_are_wanted() -> None:
    for spec, wanted in ((REPLICAS, 1), (SPLIT, 0), (OUTER, 0)):
        assert wanted_of(Endpoint(metadata=Metadata(name="chat"), spec=EndpointSpec.model_validate(spec))) == wanted


async def test_a_service_elsewhere_holds_nothing() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", OUTER)
        await world.until_ready("Endpoint", "chat")
        assert await world.bodies("Claim") == []


async def test_a_choice_is_as_good_as_those_that_are_chosen_from() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", SPLIT)
        said = await world.until_reason("Endpoint", "chat", "BackendNotFound")
        assert "there is no Endpoint one, two" in said["message"]
        await world.create("Endpoint", "one", REPLICAS)
        await world.until_ready("Endpoint", "one")
        said = await world.until_reason("Endpoint", "chat", "Degraded")
        assert said["message"] == "1 of 2 backends answer: there is no Endpoint two"
        await world.create("Endpoint", "two", REPLICAS)
        await world.until_ready("Endpoint", "chat")
        assert {claim["spec"]["workload"]["name"] for claim in await world.bodies("Claim")} == {"one", "two"}


@pytest.mark.parametrize(
    "hosts",
    [
        ["images.example.org", "images.example.org"],
        ["10.0.0.1"],
        ["127.1"],
        ["0x7f000001"],
        ["images.0x1"],
        ["images.example.org:443"],
        ["images.example.org:65536"],
    ],
)
def test_hosts_of_addresses_are_names(hosts: list[str]) -> None:
    assert any(field.startswith("spec.addresses.hosts") for field in wrong(**REPLICAS, addresses={"hosts": hosts}))


@pytest.mark.parametrize(
    "host", ["", "https://a", "a/b", "A.example", "a b", "[::1]", "a.", "-a", "a@b", "a:0", "é.example"]
)
def test_hosts_of_addresses_are_plain(host: str) -> None:
    with pytest.raises(ValidationError):
        EndpointSpec.model_validate({**REPLICAS, "addresses": {"hosts": [host]}})


def test_names_of_hosts_and_ports_are_taken() -> None:
    assert wrong(**REPLICAS, addresses={"hosts": ["images.example.org", "localhost:8443", "a-b.example:1"]}) == {}
    assert "addresses" not in EndpointSpec.model_validate(REPLICAS).dump()


def test_the_replicas_of_one_that_scales_are_of_those_that_are_wanted_now() -> None:
    shown = next(column for column in KIND.columns if column.name == "Replicas")
    status = {"readyReplicas": 3, "wantedReplicas": 4}
    assert shown.value({"spec": {**REPLICAS, "replicas": 1}, "status": status}) == "3/1"
    assert shown.value({"spec": {**REPLICAS, "scale": {"max": 9}}, "status": status}) == "3/4"
