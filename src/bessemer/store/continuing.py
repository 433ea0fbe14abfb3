"""Where a list goes on: what a continue token says, and that it is one of ours.

A token names the revision of its list, the snapshot by which other processes find that, the list, until when it may go
on, and the last object that was shown. It carries no right: each page is read by the rights that its asker has then. It
is sealed for one asker and one kind under a key that all processes of a store have, so nobody else goes on with it, and
nobody chooses at which of a server's snapshots we look. One under another key, or of another release, is told by its
mark and is Expired, so that its client lists anew. It keeps nothing: see `held`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, replace

import orjson

from bessemer.core.errors import Expired, Malformed
from bessemer.core.ports import Asker
from bessemer.store.listing import Place

_FORM = b"continue 2"
"""Another one with each change of what a token holds."""
_MARK_BYTES = 4
_MAC_BYTES = 16
_TOKEN_MAX = 2_048
"""Far more than names and numbers take."""

INCONSISTENT = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
"""As Kubernetes says it."""
UNKNOWN = (
    "The provided continue parameter was given under a key or by a release that is not here any more. You can start a "
    "new list without the continue parameter."
)


@dataclass(frozen=True, slots=True)
class Token:
    """``revision`` 0 is whatever there is now; ``snapshot`` is "" where no other process finds it; ``reading`` tells
    the lists of one revision apart; from ``until`` on, in seconds since the epoch, its list does not go on."""

    revision: int = 0
    snapshot: str = ""
    reading: str = ""
    until: int = 0
    last: Place = ("", "")


START = Token()


class Seal:
    """``key`` is the same in all processes of a store, and for this alone."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._mark = hmac.digest(key, _FORM, hashlib.sha256)[:_MARK_BYTES]

    def write(self, token: Token, kind: str, *, asker: Asker) -> str:
        """The token as the asker has it."""
        said = orjson.dumps([token.revision, token.snapshot, token.reading, token.until, *token.last])
        sealed = self._mark + self._mac(said, kind, asker=asker) + said
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def read(self, text: str, kind: str, *, asker: Asker) -> Token:
        """The inverse; "" is the start. Raises Expired for what another key or another release wrote, or might have
        written, and Malformed for what is none of this asker's, or of another kind."""
        if not text:
            return START
        try:
            raw = base64.b64decode(f"{text[:_TOKEN_MAX]}{-len(text) % 4 * '='}".encode(), b"-_", validate=True)
        except (ValueError, binascii.Error) as error:
            raise Malformed("the continue token is none of ours") from error
        if len(raw) < _MARK_BYTES + _MAC_BYTES:
            raise Malformed("the continue token is none of ours")
        mark, mac, said = raw[:_MARK_BYTES], raw[_MARK_BYTES:][:_MAC_BYTES], raw[_MARK_BYTES + _MAC_BYTES :]
        if mark != self._mark:
            raise Expired(UNKNOWN)
        if not hmac.compare_digest(mac, self._mac(said, kind, asker=asker)):
            raise Malformed("the continue token is none that you were given for this list")
        revision, snapshot, reading, until, namespace, name = orjson.loads(said)
        return Token(revision, snapshot, reading, until, (namespace, name))

    def expired(self, token: Token, kind: str, *, asker: Asker) -> Expired:
        """That its snapshot is gone, with a token that goes on from the same place at what there is now."""
        return Expired(INCONSISTENT, proceed=self.write(replace(START, last=token.last), kind, asker=asker))

    def _mac(self, said: bytes, kind: str, *, asker: Asker) -> bytes:
        about = orjson.dumps([asker.name, kind])
        return hmac.digest(self._key, about + b"\n" + said, hashlib.sha256)[:_MAC_BYTES]
