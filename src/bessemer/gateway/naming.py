"""What a client may call a model, and what that means: ``ENDPOINT``, or ``ENDPOINT:ADAPTER`` for an adapter that the
Endpoint says it has. Names are compared as they are, byte for byte. Whatever a key may not use, another project has or
nobody has is one answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.gateway import errors
from bessemer.gateway.tables import EndpointEntry, KeyEntry

Endpoints = Mapping[tuple[str, str], EndpointEntry]


def named(endpoints: Endpoints, key: KeyEntry, *, model: str) -> tuple[EndpointEntry, str]:
    """The endpoint that is meant, and its adapter, "" for none. Raises Refused."""
    entry = endpoints.get((key.project, model))
    adapter = ""
    if entry is None:
        name, _, adapter = model.partition(":")
        entry = endpoints.get((key.project, name)) if adapter else None
        if entry is None or adapter not in entry.adapters:
            raise errors.no_model(model)
    if not key.may_use(entry.name):
        raise errors.no_model(model)
    return entry, adapter


def listed(endpoints: Endpoints, key: KeyEntry) -> Iterator[tuple[str, EndpointEntry]]:
    """All that the key may use, by the names that clients use."""
    for (project, name), entry in sorted(endpoints.items(), key=lambda item: item[0]):
        if project == key.project and key.may_use(name):
            yield name, entry
            yield from ((f"{name}:{adapter}", entry) for adapter in sorted(entry.adapters))
