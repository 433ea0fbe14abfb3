"""What a client may call a model, and what that means: ``ENDPOINT``, or ``ENDPOINT:ADAPTER`` for an adapter that the
Endpoint says it has; each also as ``PROJECT/ENDPOINT``, by which a person who may ask in several projects says in
which. Names are compared as they are, byte for byte. Whatever somebody may not use, another project has or nobody has
is one answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.gateway import errors
from bessemer.gateway.people import Person
from bessemer.gateway.tables import EndpointEntry, KeyEntry

Endpoints = Mapping[tuple[str, str], EndpointEntry]


def named(endpoints: Endpoints, who: KeyEntry | Person, *, model: str) -> tuple[KeyEntry, EndpointEntry, str]:
    """The key by which it is asked, the endpoint that is meant, and its adapter, "" for none. Raises Refused."""
    key, name, adapter = who, model, ""
    if isinstance(key, Person):
        placed = key.placed(model)
        if placed is None:
            raise errors.no_model(model)
        key, name = placed
    entry = endpoints.get((key.project, name))
    if entry is None:
        name, _, adapter = name.removeprefix(f"{key.project}/").partition(":")
        entry = endpoints.get((key.project, name))
        if entry is None or (adapter not in entry.adapters if adapter else model.endswith(":")):
            raise errors.no_model(model)
    if not key.may_use(entry.name, adapter):
        raise errors.no_model(model)
    return key, entry, adapter


def listed(endpoints: Endpoints, who: KeyEntry | Person) -> Iterator[tuple[str, EndpointEntry]]:
    """All that somebody may use, by the names that they use."""
    keys = {who.project: who} if isinstance(who, KeyEntry) else {name: who.key(name) for name in who.projects}
    for project, name in sorted(place for place in endpoints if place[0] in keys):  # of all tenants': a few
        key, entry = keys[project], endpoints[project, name]
        shown = name if len(keys) == 1 else f"{project}/{name}"
        if key.may_use(name):
            yield shown, entry
        yield from ((f"{shown}:{one}", entry) for one in sorted(entry.adapters) if key.may_use(name, one))
