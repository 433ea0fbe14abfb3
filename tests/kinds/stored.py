"""Which fields stored objects have, by the schema whose first release had them: ``python -m tests.kinds.stored``.

A replica refuses a field of a stored object that it does not know, and while one of its schema serves beside it nobody
can tell which build it is of. So a field that joins within a schema is left out where it says nothing (``exclude_if``):
what nobody asks for is read by every build of the schema. Fields that are always there come with a schema of their own,
whose writers wait until no older replica serves (``docs/postgresql.md``).

The list of a schema is written once, and never again: what joins later is not in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bessemer.kinds import KINDS
from bessemer.kinds.compute.instance.spec import InstanceIntent
from bessemer.kinds.inference.endpoint.spec import EndpointIntent
from bessemer.kinds.inference.vetting.spec import VettingIntent
from bessemer.kinds.jobs.job.spec import JobIntent
from bessemer.store.schema_versions import HEAD

DATA = Path(__file__).parent / "data"
INTENTS: tuple[type[BaseModel], ...] = (InstanceIntent, EndpointIntent, VettingIntent, JobIntent)
"""What Claims carry for their hosts, whose agents may be of another build."""

FORGOTTEN = frozenset(["ProjectModel.spec.vettedIn"])
"""What stored objects may have still, and is read and left out: it never meant anything."""


@dataclass(frozen=True, slots=True)
class Field:
    """One of a stored object, by its path as ``Claim.spec.devices[]``. ``left_out`` says of a value whether it is."""

    path: str
    left_out: Callable[[Any], bool] | None
    info: FieldInfo


def fields() -> dict[str, Field]:
    """Of every kind, and of what Claims carry, by path."""
    models = {**{kind.name: kind.resource for kind in KINDS}, **{intent.__name__: intent for intent in INTENTS}}
    return {field.path: field for name, model in models.items() for field in of_model(model, name)}


def of_model(model: type[BaseModel], path: str, above: tuple[type[BaseModel], ...] = ()) -> Iterator[Field]:
    """Those of a model and of all models within it."""
    for name, info in model.model_fields.items():
        at = f"{path}.{info.alias or name}"
        yield Field(at, info.exclude_if, info)
        for inner in models_of(info.annotation):
            if inner not in above:
                yield from of_model(inner, at, (*above, model, inner))


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(model for inner in get_args(annotation) for model in models_of(inner)))


def kept(schema: str) -> Path:
    return DATA / f"stored-{schema}.txt"


def recorded(schema: str = HEAD) -> frozenset[str]:
    """The paths that the first release of the schema had."""
    return frozenset(kept(schema).read_text().split())


def main() -> int:
    """Write the list of this schema, once."""
    file = kept(HEAD)
    if file.exists():
        sys.stderr.write(f"{file} is there: what joins later is left out where it says nothing\n")
        return 1
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{path}\n" for path in sorted(fields())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
