"""Files that run code when they are loaded: pickles, by name and by their bytes.

A name alone is no proof, so the bytes are looked at too: of a pickle the opcode of its protocol; of protocols 0 and 1,
which have none, what those of tensors and of attacks begin with; and archives, in which PyTorch keeps pickles and
which no file of a model is. Nothing is unpickled or unpacked.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from bessemer.core.errors import DriverError
from bessemer.drivers.weights.protocol import PICKLED, shown

SUFFIXES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz", ".mar"))
"""``.bin`` is what PyTorch's pickles are called in repositories of models; NumPy's files may hold pickles."""

FIRST_BYTES = 64
"""As many of a file's first are looked at."""

_REMEDY = "take its safetensors or GGUF files, or have it converted where that may run"
_PROTOCOL, _PROTOCOLS = 0x80, range(2, 6)
_OLD = (b"c__builtin__\n", b"cbuiltins\n", b"cposix\n", b"cnt\n", b"cos\n", b"csubprocess\n", b"ctorch", b"ccopy_reg\n")
_STARTS = (*_OLD, *(b"(" + one for one in _OLD), b"(dp0\n", b"(lp0\n", b"(dp1\n", b"(lp1\n")
_ARCHIVE = b"PK\x03\x04"


def is_pickle_by_name(path: str) -> bool:
    """Whether it is called as pickles are."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def check_name(path: str) -> None:
    """Raise DriverError ``PickleRefused`` for what is called as pickles are."""
    if is_pickle_by_name(path):
        raise _refused(path)


def check_bytes(path: str, first: bytes) -> None:
    """Raise DriverError ``PickleRefused`` for what a pickle's loader would take, whatever it is called. ``first`` are
    the first `FIRST_BYTES` of it."""
    marked = len(first) > 1 and first[0] == _PROTOCOL and first[1] in _PROTOCOLS
    if marked or first.startswith((*_STARTS, _ARCHIVE)):
        raise _refused(path)


def _refused(path: str) -> DriverError:
    return DriverError(PICKLED, f"{shown(path)} is a pickle, which runs code when it is loaded: {_REMEDY}")
