"""Reads the openb files: cluster-trace-gpu-v2023 of Alibaba, and all that have its columns.

A node list has ``sn, cpu_milli, memory_mib, gpu, model``; a pod list has ``name, cpu_milli, memory_mib, num_gpu,
gpu_milli`` and may have ``gpu_spec``, models that will do (``G2|P100``; none: any). Other columns are passed over, and
no time is read: arrivals are drawn (`arrivals`).

It takes lines and opens nothing. A file is read whole or refused with its line and column.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bessemer.core.asking import Request
from bessemer.core.errors import Invalid
from bessemer.core.hosts import DEVICES_MAX, NODE_BYTES_MAX, Device, Inventory, NumaNode
from bessemer.core.units import MIB
from bessemer.placement.facts import HostFacts

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")

WORD_MAX = 200
"""Characters of a name or a model."""

Read = TypeVar("Read")

_MILLI_MAX = 1000 << 20
_MIB_MAX = NODE_BYTES_MAX // MIB


def read_hosts(lines: Iterable[str], *, file: str = "the node list") -> list[HostFacts]:
    """A host per row: one NUMA node with all cores and memory, and ``gpu`` devices of the model. What a row has beyond
    whole cores is not sold. Raises Invalid with ``file``, line and column."""
    found: dict[str, HostFacts] = {}
    for row in _rows(lines, NODE_COLUMNS, file=file):
        name = row.word("sn")
        if not name or name in found:
            raise row.wrong("sn", "a host of this name came before" if name else "a host needs a name")
        gpus = row.number("gpu", DEVICES_MAX)
        model = row.word("model")
        if gpus and not model:
            raise row.wrong("model", "devices need a model")
        threads = row.number("cpu_milli", _MILLI_MAX) // 1000
        memory = row.number("memory_mib", _MIB_MAX) * MIB
        # Devices are sorted by their ids: so they keep their order.
        devices = [Device(id=f"gpu{n:03}", kind="gpu", model=model) for n in range(gpus)]
        node = NumaNode(id=0, cores=threads, threads=threads, memory_bytes=memory)
        found[name] = HostFacts(name=name, inventory=Inventory(numa=[node], devices=devices, sharing="time"))
    return _some(list(found.values()), file)


def read_requests(lines: Iterable[str], *, file: str = "the pod list", tenant: str = "openb") -> list[Request]:
    """A request per row; equal rows are one value. Raises Invalid with ``file``, line and column."""
    once: dict[Request, Request] = {}
    requests = []
    for row in _rows(lines, POD_COLUMNS, file=file):
        request = _request(row, tenant)
        requests.append(once.setdefault(request, request))
    return _some(requests, file)


def _request(row: _Row, tenant: str) -> Request:
    count = row.number("num_gpu", DEVICES_MAX)
    milli = row.number("gpu_milli", 1000)
    if count and not milli:
        raise row.wrong("gpu_milli", "a device is wanted, and nothing of it")
    if count > 1 and milli < 1000:
        raise row.wrong("gpu_milli", f"a share is of one device; {count} are wanted whole, which is 1000")
    spec = row.word("gpu_spec") if "gpu_spec" in row.cells else ""
    # What wants no device wants none of any model either.
    models = frozenset(spec.split("|")) if spec and count else frozenset[str]()
    if "" in models:
        raise row.wrong("gpu_spec", "a model between bars is empty; write them as G2|P100")
    return Request(
        tenant=tenant,
        milli_cores=row.number("cpu_milli", _MILLI_MAX),
        memory_bytes=row.number("memory_mib", _MIB_MAX) * MIB,
        device_count=count,
        device_milli=milli if count else 1000,
        device_models=models,
    )


# --- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """The cells of one row by column, and where they stand."""

    cells: Mapping[str, str]
    file: str
    line: int

    def word(self, column: str) -> str:
        """A cell as a short word."""
        word = self.cells[column].strip()
        if len(word) > WORD_MAX or not word.isprintable():
            raise self.wrong(column, f"a word of at most {WORD_MAX} printable characters belongs here")
        return word

    def number(self, column: str, most: int) -> int:
        """A cell as a whole number from 0 to ``most``."""
        cell = self.cells[column].strip()
        if not re.fullmatch(r"[0-9]{1,18}", cell) or int(cell) > most:
            raise self.wrong(column, f"a whole number from 0 to {most:,} belongs here, not {cell[:40]!r}")
        return int(cell)

    def wrong(self, column: str, why: str) -> Invalid:
        """The refusal, for the caller to raise."""
        return Invalid(f"{self.file}, line {self.line}, column {column}: {why}")


def _rows(lines: Iterable[str], columns: tuple[str, ...], *, file: str) -> Iterator[_Row]:
    reader = csv.reader(lines, strict=True)
    try:
        head = [cell.strip() for cell in next(reader, [])]
        if head:
            head[0] = head[0].removeprefix("\ufeff")
        lacking = [column for column in columns if column not in head]
        if lacking:
            asked = f"its first line must name {', '.join(columns)}"
            raise Invalid(f"{file}, line 1: there is no column {', '.join(lacking)}; {asked}")
        for cells in reader:
            if len(cells) != len(head) and cells:
                raise Invalid(f"{file}, line {reader.line_num}: {len(cells)} cells under {len(head)} columns")
            if cells:
                yield _Row(dict(zip(head, cells, strict=True)), file, reader.line_num)
    except csv.Error as error:
        raise Invalid(f"{file}, line {reader.line_num}: this is no CSV: {error}") from None


def _some(found: list[Read], file: str) -> list[Read]:
    if not found:
        raise Invalid(f"{file} has no rows below its head")
    return found
