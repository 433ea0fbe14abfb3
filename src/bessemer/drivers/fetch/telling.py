"""What a source may be told: the secrets that were set for it, and for no other place."""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.protocol import AUDIENCE, Place


def bound(secrets: Mapping[str, str], place: Place) -> Mapping[str, str]:
    """The secrets, for the place that they were set for. Raises DriverError ``SecretOfAnother`` where that is another:
    who may change where a model comes from may not have what somebody else set told to a place of their own."""
    said = {name: value for name, value in secrets.items() if name != AUDIENCE}
    if said and secrets.get(AUDIENCE) != place.audience:
        words = f"what its source is shown was set for {secrets.get(AUDIENCE) or 'an earlier source'}, and this is"
        raise DriverError("SecretOfAnother", f"{words} {place.audience or 'a folder'}: set it anew, or take it away")
    return said
