"""The probe's firmware: 64 KiB of ROM with the code of ``probe.S`` at its start, where the reset vector jumps."""

from __future__ import annotations

EXIT_PORT = 0xF4
PASSED = 0x15 << 1 | 1
"""QEMU's exit status when the firmware ran to its end."""

_ROM_BYTES = 64 << 10
_RESET_VECTOR = 0xFFF0
_HALT = b"\xf4"
_JUMP_TO_START = bytes.fromhex("ea000000f0")
_CODE = bytes.fromhex(
    "fa31c08ed866c70600100320000066c70600200330000066c70618200340000066c70600308300000066c706b84f8300e0fe66b80010"
    "00000f22d80f20e00c200f22e066b9800000c00f3280cc010f302e660f011600010f20c0660d010000800f22c066ea6b000f000800bc"
    "00700000bb0000e0fec7835003000000070000c783f0000000ff01000066c7042500520000dd00c70425025200000800008e66c70425"
    "065200000f000f011d57000000b011e620b020e621b004e621b001e621b0fee621b034e643b0a9e640b004e64031d2fbf483fa0572fa"
    "b015e6f4f4ffc2b020e62048cf0f1f000000000000000000ffff0000009aaf00ffff00000092cf001700e8000f000f02005000000000"
    "0000"
)


def firmware() -> bytes:
    """The ROM as ``-bios`` takes it."""
    rom = bytearray(_HALT * _ROM_BYTES)
    rom[: len(_CODE)] = _CODE
    rom[_RESET_VECTOR : _RESET_VECTOR + len(_JUMP_TO_START)] = _JUMP_TO_START
    return bytes(rom)
