"""Whoever has the key reads all that was written, or hears what is wrong with the file; nobody else reads any."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from bessemer.core.errors import Invalid
from bessemer.core.parcel import Packing, Sum, Unpacking
from bessemer.core.strongbox import MAGIC, RECORD_BYTES_MAX, Secret, Writer, read

KEY = Secret(bytes(range(32)), passphrase=False)
WORDS = Secret(b"correct horse battery", passphrase=True, cost=2)
RECORDS = [b"first", b"", b"x" * 5000, b"last of all"]


def written(secret: Secret = KEY, records: list[bytes] = RECORDS) -> bytes:
    out = io.BytesIO()
    box = Writer(out, secret)
    for record in records[:-1]:
        box.add(record)
    box.end(records[-1])
    return out.getvalue()


def opened(file: bytes, secret: Secret = KEY) -> list[bytes]:
    return [record for record, _ in read(io.BytesIO(file), lambda _: secret, name="monday")]


def frames(file: bytes) -> tuple[bytes, list[bytes]]:
    place = file.index(b"\n", len(MAGIC)) + 1
    head, found = file[:place], []
    while place < len(file):
        end = place + 4 + int.from_bytes(file[place : place + 4], "big")
        found.append(file[place:end])
        place = end
    return head, found


@pytest.mark.parametrize("secret", [KEY, WORDS], ids=["key", "passphrase"])
def test_what_was_written_is_read(secret: Secret) -> None:
    asked: list[bool] = []
    file = written(secret)
    found = [*read(io.BytesIO(file), lambda passphrase: asked.append(passphrase) or secret, name="f")]
    assert found == [(record, record == RECORDS[-1]) for record in RECORDS]
    assert asked == [secret.passphrase]
    assert not any(record in file for record in RECORDS if record)


def test_two_files_of_the_same_have_nothing_in_common() -> None:
    one, two = (frames(written())[1] for _ in range(2))
    assert not set(one) & set(two)


@pytest.mark.parametrize("secret", [KEY, WORDS], ids=["key", "passphrase"])
def test_another_secret_is_told_from_a_changed_file(secret: Secret) -> None:
    with pytest.raises(Invalid, match="monday was not written under this"):
        opened(written(secret), replace(secret, value=b"another" * 9))


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    file = written()
    begin = len(frames(file)[0])
    for size in range(begin, len(file)):
        with pytest.raises(Invalid, match="cut off"):
            opened(file[:size])


def test_a_bit_that_was_changed_anywhere_is_found() -> None:
    file = written(records=[b"some", b"more"])
    for place in range(len(file)):
        for bit in (1, 128):
            changed = bytearray(file)
            changed[place] ^= bit
            with pytest.raises(Invalid):
                opened(bytes(changed))


def test_frames_that_are_swapped_dropped_repeated_or_of_another_file_are_found() -> None:
    head, (a, b, c, d) = frames(written())
    other = frames(written())[1]
    for wrong in ([b, a, c, d], [a, c, d], [a, a, b, c, d], [a, b, c, d, d], [a, b, d], [a, other[1], c, d], [d]):
        with pytest.raises(Invalid):
            opened(head + b"".join(wrong))


def test_a_header_that_asks_for_the_moon_is_refused() -> None:
    head, rest = frames(written(WORDS))
    said = json.loads(head[len(MAGIC) :])
    for change in ({"n": 1 << 30}, {"n": 3}, {"n": "2"}, {"r": 1 << 20}, {"kdf": "none"}, {"salt": "x"}, {"n": True}):
        changed = MAGIC + json.dumps({**said, **change}).encode() + b"\n"
        with pytest.raises(Invalid, match="header"):
            opened(changed + b"".join(rest), WORDS)


@pytest.mark.parametrize("file", [b"", b"PK\x03\x04", MAGIC, MAGIC + b"{}\n", MAGIC + b"[" * 5000])
def test_what_is_no_backup_is_refused(file: bytes) -> None:
    with pytest.raises(Invalid, match="monday"):
        opened(file)


def test_a_record_has_an_end() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Writer(io.BytesIO(), KEY).add(bytes(RECORD_BYTES_MAX + 1))
    head, _ = frames(written())
    with pytest.raises(Invalid, match="changed"):
        opened(head + b"\xff\xff\xff\xff")


# --- parcels --------------------------------------------------------------------------------------------------------


def parcel() -> bytes:
    out = io.BytesIO()
    packing = Packing(Writer(out, KEY), {"release": "1"})
    assert packing.part("rows", [(b"a" * 3000, 2), (b"b", 1)]).entries == 3
    packing.part("file", [(b"noise", 0)], packed=False)
    packing.part("empty", [])
    packing.end({"revision": 7})
    return out.getvalue()


def unpack(file: bytes) -> Unpacking:
    return Unpacking(read(io.BytesIO(file), lambda _: KEY, name="monday"), name="monday")


def test_parts_are_read_as_they_were_written() -> None:
    unpacking = unpack(parcel())
    assert unpacking.facts == {"release": "1"}
    found = {name: b"".join(content) for name, content in unpacking.parts()}
    assert found == {"rows": b"a" * 3000 + b"b", "file": b"noise", "empty": b""}
    assert [(one.name, one.entries, one.bytes) for one in unpacking.sums] == [
        ("rows", 3, 3001),
        ("file", 0, 5),
        ("empty", 0, 0),
    ]
    assert unpacking.summary["revision"] == 7
    assert len(parcel()) < 2000


def test_a_part_that_nobody_reads_is_read_all_the_same() -> None:
    unpacking = unpack(parcel())
    assert [name for name, _ in unpacking.parts()] == ["rows", "file", "empty"]
    assert [type(one) for one in unpacking.sums] == [Sum] * 3


@pytest.mark.parametrize(
    "records",
    [
        [b"P"],
        [b"B{}", b"Dx", b"S{}"],
        [b"B{}", b"Pa", b'E{"name": "b", "entries": 0, "bytes": 0, "sha256": ""}', b'S{"parts": []}'],
        [b"B{}", b'S{"parts": [1]}'],
        [b"B{}", b'S{"parts": []}', b"D"],
        [b"B{}", b"Pa", b"Zx\x9c", b"S{}"],
    ],
)
def test_a_parcel_that_somebody_with_the_key_put_together_otherwise_is_refused(records: list[bytes]) -> None:
    with pytest.raises(Invalid, match="does not hold together"):
        for _ in unpack(written(records=records)).parts():
            pass
