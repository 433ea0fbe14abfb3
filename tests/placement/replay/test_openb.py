"""The files of openb are read as they are meant, or refused with line and column."""

from __future__ import annotations

import pytest
from bench._trace import drawn

from bessemer.core.asking import Request
from bessemer.core.errors import Invalid
from bessemer.core.units import GIB
from bessemer.placement.replay import Trace, openb

NODES = "sn,cpu_milli,memory_mib,gpu,model"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos"


def test_a_host_is_one_node_with_devices_of_its_model() -> None:
    big, bare = openb.read_hosts([NODES, "n1,96000,393216,8,G2", "n2,64500,1024,0,"])
    node = big.inventory.numa[0]
    assert (big.name, node.threads, node.memory_bytes) == ("n1", 96, 384 * GIB)
    assert [(d.kind, d.model, d.healthy) for d in big.inventory.devices] == [("gpu", "G2", True)] * 8
    assert [d.id for d in big.inventory.devices] == sorted(d.id for d in big.inventory.devices)
    assert (bare.inventory.threads, bare.inventory.devices) == (64, [])


def test_devices_keep_their_order_however_many_there_are() -> None:
    (wide,) = openb.read_hosts([NODES, "n1,1000,1024,256,G2"])
    assert [d.id for d in wide.inventory.devices] == sorted(d.id for d in wide.inventory.devices)


def test_a_request_is_of_devices_a_share_or_cores() -> None:
    rows = [
        PODS,
        "p1,12000,16384,2,1000,G2|P100,LS",
        "p2,6000,1024,1,460,,BE",
        "p3,500,0,0,0,T4,LS",
        "p4,6000,1024,1,460,,LS",
    ]
    whole, share, cores, same = openb.read_requests(rows)
    assert whole == Request(
        tenant="openb",
        milli_cores=12000,
        memory_bytes=16 * GIB,
        device_count=2,
        device_models=frozenset({"G2", "P100"}),
    )
    assert (share.device_count, share.device_milli, share.device_models) == (1, 460, frozenset())
    assert (cores.device_count, cores.device_milli, cores.device_models) == (0, 1000, frozenset())
    assert same is share


def test_columns_are_found_by_name_and_others_passed_over() -> None:
    rows = ["\ufeffgpu_milli,num_gpu,deletion_time,name,memory_mib,cpu_milli", "1000,1,12 May,p1,1024,250", ""]
    (read,) = openb.read_requests(rows)
    assert (read.milli_cores, read.memory_bytes, read.device_count) == (250, GIB, 1)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "F, line 1: there is no column sn, cpu_milli"),
        (["sn,cpu_milli,memory_mib,model"], "F, line 1: there is no column gpu; its first line must name sn,"),
        ([NODES], "F has no rows below its head"),
        ([NODES, "n1,1000,1024,1"], "F, line 2: 4 cells under 5 columns"),
        ([NODES, "n1,1000,1024,1,T4", "n1,1000,1024,1,T4"], "F, line 3, column sn: a host of this name came before"),
        ([NODES, " ,1000,1024,1,T4"], "F, line 2, column sn: a host needs a name"),
        ([NODES, "n1,1000,1024,1,"], "F, line 2, column model: devices need a model"),
        ([NODES, "n1,1000,1024,257,T4"], "column gpu: a whole number from 0 to 256 belongs here, not '257'"),
        ([NODES, "n1,-1,1024,1,T4"], "column cpu_milli: a whole number from 0 to"),
        ([NODES, "n1,1_0,1024,1,T4"], "column cpu_milli"),
        ([NODES, "n1,1e3,1024,1,T4"], "column cpu_milli"),
        ([NODES, "n1,1000.5,1024,1,T4"], "column cpu_milli"),
        ([NODES, "n1,٣,1024,1,T4"], "column cpu_milli"),
        ([NODES, "n1,1000,99999999999999999999,1,T4"], "column memory_mib"),
        ([NODES, f"{'n' * 300},1000,1024,1,T4"], "column sn: a word of at most 200"),
        ([NODES, "n\x1b[2J,1000,1024,1,T4"], "column sn: a word of at most 200"),
        ([NODES, 'n1,1000,1024,1,"T4'], "F, line 2: this is no CSV"),
        ([NODES, "n1,1000,1024,1," + "x" * 200_000], "F, line 2: this is no CSV"),
    ],
)
def test_a_bad_node_list_is_refused_where_it_is_bad(rows: list[str], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        openb.read_hosts(rows, file="F")
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("p,1000,1024,1,0,,", "column gpu_milli: a device is wanted, and nothing of it"),
        ("p,1000,1024,1,1001,,", "column gpu_milli: a whole number from 0 to 1,000"),
        ("p,1000,1024,2,500,,", "column gpu_milli: a share is of one device; 2 are wanted whole"),
        ("p,1000,1024,1,500,G2||T4,", "column gpu_spec: a model between bars is empty"),
        ("p,,1024,1,500,,", "column cpu_milli: a whole number"),
    ],
)
def test_a_bad_pod_list_is_refused_where_it_is_bad(row: str, said: str) -> None:
    with pytest.raises(Invalid, match="line 3, ") as refused:
        openb.read_requests([PODS, "p,1000,1024,1,500,,", row], file="F")
    assert said in str(refused.value)


def test_a_drawn_trace_is_drawn_again_and_may_be_picky() -> None:
    assert drawn(1, hosts=5) == drawn(1, hosts=5) != drawn(2, hosts=5)
    requests = openb.read_requests(drawn(1, hosts=30, picky=0.5).pods)
    devices = [r for r in requests if r.device_count]
    assert 0.35 < sum(bool(r.device_models) for r in devices) / len(devices) < 0.65
    assert {r.device_milli < 1000 for r in devices} == {True, False}


def test_a_trace_knows_its_size_and_its_halves() -> None:
    hosts = openb.read_hosts([NODES, "n1,96000,393216,8,G2", "n2,64000,1024,2,T4"])
    requests = openb.read_requests([PODS, *(f"p{n},{n},0,0,0,," for n in range(5))])
    trace = Trace(tuple(hosts), tuple(requests))
    assert (trace.devices, trace.capacity_milli) == (10, 10_000)
    first, second = trace.halves()
    assert (len(first.requests), len(second.requests)) == (2, 3)
    assert first.requests + second.requests == trace.requests
    assert {host.name for host in trace.named_anew(1)} & {host.name for host in trace.named_anew(2)} == set()
    assert trace.named_anew(1) == trace.named_anew(1)
