"""A file of records that is read by whoever has its key, and by nobody who changed it: what a backup is kept in.

The format, numbers big-endian::

    "bessemer strongbox 1\\n"   then one line of JSON, its end included: the header
    frame*                      4 bytes: how long the ciphertext is; the ciphertext

The header says how the key follows from a secret: ``{"kdf": "scrypt", "n": …, "r": 8, "p": 1, "salt": HEX}`` of a
passphrase, ``{"kdf": "hkdf", "salt": HEX}`` of a key file; ``check`` is derived beside the key, and tells a wrong
secret from a changed file. Key and check are 32 bytes each. A frame is AES-256-GCM of one record, 16 MiB at most; its
nonce is 11 bytes of a counter from 0 and one that is 1 for the last frame and else 0; bound to it is the SHA-256 of all
that stands before the first frame. So frames that are changed, swapped, repeated, taken from elsewhere or missing do
not open, and a file without its last frame has no end. A salt is used once, so a nonce is.

It holds one record at a time. It knows nothing of what records mean, and hides of them only what they say: not how many
and how long they are.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bessemer.core.errors import Invalid

MAGIC = b"bessemer strongbox 1\n"
RECORD_BYTES_MAX = 16 << 20
KEY_FILE_BYTES_MIN = 32
COST = 1 << 17
"""Of scrypt, with r=8: 128 MiB and a good part of a second for each guess."""

_COST_MAX = 1 << 20
_HEADER_BYTES_MAX = 4096
_TAG_BYTES = 16
_INFO = b"bessemer strongbox 1"


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """What the key follows from. ``passphrase`` says that people made it, so that a guess is to be dear."""

    value: bytes
    passphrase: bool
    cost: int = COST


class Writer:
    """Writes records to a file, the last by `end`. Raises OSError, and ValueError for a record that is too long."""

    def __init__(self, out: IO[bytes], secret: Secret) -> None:
        self._out = out
        salt = secrets.token_bytes(32)
        how = {"kdf": "scrypt", "n": secret.cost, "r": 8, "p": 1} if secret.passphrase else {"kdf": "hkdf"}
        said = {**how, "salt": salt.hex()}
        key, check = _derived(secret, said)
        header = MAGIC + orjson.dumps({**said, "check": check.hex()}) + b"\n"
        self._cipher, self._bound, self._count = AESGCM(key), hashlib.sha256(header).digest(), 0
        out.write(header)

    def add(self, record: bytes) -> None:
        """Another record."""
        self._write(record, last=False)

    def end(self, record: bytes) -> None:
        """The last."""
        self._write(record, last=True)

    def _write(self, record: bytes, *, last: bool) -> None:
        if len(record) > RECORD_BYTES_MAX:
            raise ValueError(f"a record has {len(record)} bytes")
        sealed = self._cipher.encrypt(_nonce(self._count, last=last), record, self._bound)
        self._count += 1
        self._out.write(len(sealed).to_bytes(4, "big") + sealed)


def read(source: IO[bytes], secret: Callable[[bool], Secret], *, name: str) -> Iterator[tuple[bytes, bool]]:
    """Each record of a file in order, and whether it is the last. ``secret`` is asked once, for a passphrase or else a
    key file. Raises Invalid, which names the file and the place, where it is not as it was written; OSError."""
    header, said = _header(source, name)
    key, check = _derived(secret(said["kdf"] == "scrypt"), said, name=name)
    if not secrets.compare_digest(check.hex(), str(said.get("check"))):
        words = "passphrase" if said["kdf"] == "scrypt" else "key file"
        raise Invalid(f"{name} was not written under this {words}")
    cipher, bound, count, last = AESGCM(key), hashlib.sha256(header).digest(), 0, False
    while not last:
        place = f"{name}, frame {count + 1}"
        sealed = _frame(source, place)
        record, last = _opened(cipher, sealed, bound=bound, count=count, place=place)
        count += 1
        if last and source.read(1):
            raise Invalid(f"{place}: something stands behind the end")
        yield record, last


def _frame(source: IO[bytes], place: str) -> bytes:
    size = source.read(4)
    length = int.from_bytes(size, "big")
    if len(size) == 4 and not _TAG_BYTES <= length <= RECORD_BYTES_MAX + _TAG_BYTES:
        raise Invalid(f"{place}: the file was changed")
    sealed = source.read(length) if len(size) == 4 else b""
    if len(size) < 4 or len(sealed) < length:
        raise Invalid(f"{place}: the file was cut off")
    return sealed


def _opened(cipher: AESGCM, sealed: bytes, *, bound: bytes, count: int, place: str) -> tuple[bytes, bool]:
    for last in (False, True):
        try:
            return cipher.decrypt(_nonce(count, last=last), sealed, bound), last
        except InvalidTag:
            continue
    raise Invalid(f"{place}: the file was changed")


def _header(source: IO[bytes], name: str) -> tuple[bytes, dict[str, object]]:
    """What stands before the frames, and what its line says."""
    magic, line = source.read(len(MAGIC)), source.readline(_HEADER_BYTES_MAX)
    if magic != MAGIC:
        raise Invalid(f"{name} is no backup of this format")
    try:
        said = orjson.loads(line)
        if said["kdf"] not in ("scrypt", "hkdf"):
            raise ValueError("unknown")
        bytes.fromhex(said["salt"])
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{name}: its header was changed, or is of a newer release") from error
    return magic + line, said


def _derived(secret: Secret, said: dict[str, object], *, name: str = "") -> tuple[bytes, bytes]:
    """Key and check. Raises Invalid for what no release writes."""
    salt = bytes.fromhex(str(said["salt"]))
    if said["kdf"] == "hkdf":
        both = HKDF(algorithm=SHA256(), length=64, salt=salt, info=_INFO).derive(secret.value)
        return both[:32], both[32:]
    cost, block, beside = said.get("n"), said.get("r"), said.get("p")
    if not isinstance(cost, int) or not 2 <= cost <= _COST_MAX or cost & (cost - 1) or (block, beside) != (8, 1):
        raise Invalid(f"{name}: its header was changed: no release asks for so much")
    both = Scrypt(salt=salt, length=64, n=cost, r=8, p=1).derive(secret.value)
    return both[:32], both[32:]


def _nonce(count: int, *, last: bool) -> bytes:
    return count.to_bytes(11, "big") + bytes([last])
