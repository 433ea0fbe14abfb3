"""Gangs by example."""

from __future__ import annotations

from bessemer.core.values import Gang, GangDecision, Refusal
from bessemer.placement.gangs import decide_gang
from tests.placement.hosts import ask, fleet, host


def yard(*, leaves: int = 2, hosts: int = 2, gpus: int = 4):
    return fleet(
        *(
            host(f"h{leaf}{n}", gpus=gpus, leaf=f"l{leaf}", spine=f"s{leaf // 2}")
            for leaf in range(leaves)
            for n in range(hosts)
        )
    )


def test_all_go_under_one_leaf() -> None:
    answer = decide_gang(yard(), Gang(member=ask(device_count=4), count=2))
    assert isinstance(answer, GangDecision)
    assert sorted(member.host for member in answer.members) == ["h00", "h01"]
    assert (answer.leaves, answer.spines) == (1, 1)


def test_two_on_one_host_share_no_device() -> None:
    answer = decide_gang(yard(), Gang(member=ask(device_count=2), count=2))
    assert isinstance(answer, GangDecision)
    one, other = answer.members
    assert one.host == other.host
    assert not set(one.devices) & set(other.devices)


def test_all_or_none() -> None:
    assert isinstance(decide_gang(yard(), Gang(member=ask(device_count=4), count=5)), Refusal)
    required = Gang(member=ask(device_count=4), count=3, policy="required")
    assert isinstance(decide_gang(yard(), required), Refusal)
    assert isinstance(decide_gang(yard(), Gang(member=ask(device_count=4), count=3)), GangDecision)
