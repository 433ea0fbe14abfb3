"""Kinds of several versions: there and back is the same, whatever is said, and the clients speak the newest."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.client.paths import NEWEST
from bessemer.core.errors import Invalid
from bessemer.core.resource import GROUP, VERSION, Kind
from bessemer.core.versions import annotation, lowered, raised, rank
from bessemer.kinds import KINDS
from bessemer.kinds.fleet.flavor import KIND, FlavorSpec
from bessemer.kinds.fleet.flavor_v1alpha1 import V1ALPHA1
from bessemer.kinds.fleet.flavor_v1alpha1 import FlavorSpec as OldSpec
from tests.api.test_hostile import JSON_VALUES

SIZES = st.sampled_from(["16Mi", "1.5Gi", "64Gi"])
SHARED = {
    "description": st.sampled_from(["", "small", "ö"]),
    "disk": SIZES | st.just("0"),
    "numa": st.sampled_from(["required", "preferred", "legacy"]),
}
DEVICES = st.fixed_dictionaries(
    {"count": st.integers(1, 64)},
    optional={
        "model": st.sampled_from(["", "H100"]),
        "together": st.lists(st.sampled_from(["switch", "nvlink"]), max_size=3),
    },
)
newest = st.fixed_dictionaries(
    {"cores": st.integers(1, 4096), "memory": SIZES},
    optional={
        **SHARED,
        "offered": st.booleans(),
        "devices": DEVICES,
        "cpuPolicy": st.sampled_from(["shared", "threads", "cores"]),
        "hugepages": st.sampled_from(["0", "1Gi"]),
        "companions": st.lists(st.just({"kind": "nic", "near": "switch"}), max_size=1),
    },
).map(lambda spec: FlavorSpec.model_validate(spec).dump())
older = (
    st.fixed_dictionaries(
        {"cpus": st.integers(1, 4096), "memory": SIZES},
        optional={
            **SHARED,
            "gpus": st.integers(0, 64),
            "gpuModel": st.sampled_from(["", "H100"]),
            "sameSwitch": st.booleans(),
            "sameNvlink": st.booleans(),
        },
    )
    .map(lambda spec: spec if spec.get("gpus") else {k: v for k, v in spec.items() if k[:3] not in ("gpu", "sam")})
    .map(lambda spec: OldSpec.model_validate(spec).dump())
)
annotations = st.none() | st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=3), max_size=2)


def body(version: str, spec: Any, said: Any = None) -> dict[str, Any]:
    metadata = {"name": "f", "labels": {"x": "y"}, **({} if said is None else {"annotations": said})}
    return {"apiVersion": f"bessemer.dev/{version}", "kind": "Flavor", "metadata": metadata, "spec": spec}


@given(newest, annotations.filter(lambda said: said != {}))
def test_the_newest_is_the_same_after_an_older_one(spec: Any, said: Any) -> None:
    before = body("v1beta1", spec, said)
    kept = deepcopy(before)
    down = lowered(KIND, V1ALPHA1, body=before)
    OldSpec.model_validate(down["spec"])
    assert raised(KIND, V1ALPHA1, body=down) == before == kept
    assert lowered(KIND, V1ALPHA1, body=raised(KIND, V1ALPHA1, body=down)) == down


@given(older, annotations)
def test_an_older_one_is_the_same_after_the_newest(spec: Any, said: Any) -> None:
    before = body("v1alpha1", spec, said)
    up = raised(KIND, V1ALPHA1, body=before)
    FlavorSpec.model_validate(up["spec"])
    assert lowered(KIND, V1ALPHA1, body=up) == before


NAMES = [*FlavorSpec.model_fields, *OldSpec.model_fields, "gpuModel", "sameSwitch"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=6) | JSON_VALUES, JSON_VALUES)
def test_what_nobody_has_judged_is_converted_all_the_same(spec: Any, kept: Any) -> None:
    said = {"a": "b", annotation(KIND): orjson.dumps(kept).decode()}
    lowered(KIND, V1ALPHA1, body=body("v1beta1", spec))
    lowered(KIND, V1ALPHA1, body=body("v1beta1", {"offered": False}, kept))
    raised(KIND, V1ALPHA1, body=body("v1alpha1", spec, kept))
    if isinstance(kept, dict):
        raised(KIND, V1ALPHA1, body=body("v1alpha1", spec, said))
    else:
        with pytest.raises(Invalid):
            raised(KIND, V1ALPHA1, body=body("v1alpha1", spec, said))


def test_only_what_cannot_be_said_is_kept() -> None:
    spec = {"cores": 1, "memory": "1Gi", "offered": False}
    down = lowered(KIND, V1ALPHA1, body=body("v1beta1", spec))
    assert down["metadata"]["annotations"] == {"conversion.bessemer.dev/v1beta1": '{"offered":false}'}
    again = lowered(KIND, V1ALPHA1, body=body("v1beta1", spec | {"offered": True}))
    assert "annotations" not in again["metadata"]


def test_versions_in_the_order_of_preference() -> None:
    names = ["v1alpha1", "v2", "v1beta1", "v1", "v1beta2", "v10alpha1", "odd"]
    order = ["v2", "v1", "v1beta2", "v1beta1", "v10alpha1", "v1alpha1", "odd"]
    assert sorted(names, key=rank, reverse=True) == order


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_clients_speak_the_newest_version(kind: Kind[Any, Any]) -> None:
    if kind.group == GROUP:
        assert NEWEST.get(kind.name, VERSION) == kind.version
        assert kind.resource.model_fields["api_version"].default == kind.api_version
        assert all(rank(kind.version) > rank(version.name) for version in kind.older)
