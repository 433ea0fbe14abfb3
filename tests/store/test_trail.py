"""The trail is found to be what it was, or where it is not: each way to tamper, on both databases.

Whoever tampers here has all of the database, and neither the key that signs nor the file of heads.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from bessemer.core.errors import Conflict, Malformed, Unavailable
from bessemer.core.ports import Writer
from bessemer.core.resource import Key
from bessemer.core.trail import FileVerifier, Head, Signer, head_of
from tests.oracle import trail as oracle
from tests.store.make import ALICE, body
from tests.store.trail import BOTH, NAMES, PUBLIC, Town, judged, open_again, quoted
from tests.store.trail import town as town  # noqa: PLC0414

# --- an honest trail ------------------------------------------------------------------------------------------------


async def test_a_trail_that_nobody_touched_is_sound(town: Town) -> None:
    assert await town.store.audit.verify() is None
    lines = await town.lines()
    assert judged(lines) is None
    assert oracle.check(lines, key=PUBLIC) is None
    heads = [json.loads(line)["head"] for line in lines if b'"head"' in line]
    assert [head["id"] for head in heads] == [4, 8, 12]
    assert [json.loads(line)["head"]["id"] for line in town.heads.read_bytes().splitlines()] == [4, 8, 12]
    assert town.heads.stat().st_mode & 0o077 == 0


async def test_an_export_ends_with_a_head_of_its_last_row(town: Town) -> None:
    await town.store.audit.note(Writer("user", "ä\u2028", "r", "::1"), 'lög"in', key=Key("User", "", "ä"))
    lines = await town.lines(after=9)
    assert json.loads(lines[0])["after"] == 9
    assert json.loads(lines[-1])["head"]["id"] == 13
    assert judged(lines) is None
    assert oracle.check(lines, key=PUBLIC) is None
    with pytest.raises(Conflict, match="no row 99"):
        await town.lines(after=99)


async def test_nothing_new_is_not_signed_again(town: Town) -> None:
    before = town.heads.read_bytes()
    await town.store.audit.sign()
    assert town.heads.read_bytes() == before


# --- tampering, found and located -----------------------------------------------------------------------------------

REST = ", ".join(f'"{name}"' for name in NAMES[1:])


def renumber(*pairs: tuple[int, int]) -> list[str]:
    return [f"UPDATE audit SET id = {new} WHERE id = {old}" for old, new in pairs]


def another(number: int) -> str:
    """A copy of the first row, under another number."""
    return f"INSERT INTO audit (id, {REST}) SELECT {number}, {REST} FROM audit WHERE id = 1"


TAMPERS: dict[str, tuple[list[str], int]] = {
    "who": (["UPDATE audit SET writer = 'user:mallory' WHERE id = 3"], 3),
    "allowed": (["UPDATE audit SET allowed = 0 WHERE id = 5"], 5),
    "what it changed": (["UPDATE audit SET change = '{}' WHERE id = 6"], 6),
    "said to be old": (["UPDATE audit SET change = '' WHERE id = 6"], 6),
    "when": (["UPDATE audit SET at = at + 1 WHERE id = 12"], 12),
    "whose": (["UPDATE audit SET tenant = 'other' WHERE id = 7"], 7),
    "shown to nobody": (["UPDATE audit SET tenant = '' WHERE id = 7"], 7),
    "digest": (["UPDATE audit SET digest = (SELECT digest FROM audit WHERE id = 1) WHERE id = 2"], 2),
    "removed": (["DELETE FROM audit WHERE id = 4"], 5),
    "the first removed": (["DELETE FROM audit WHERE id <= 3"], 4),
    "removed and closed up": (["DELETE FROM audit WHERE id = 4", *renumber(*((n + 1, n) for n in range(4, 12)))], 4),
    "inserted": ([*renumber(*((n, n + 1) for n in range(12, 5, -1))), another(6)], 6),
    "inserted before the first": ([another(-1)], -1),
    "inserted as number nought": ([another(0)], 0),
    "appended": ([another(13)], 13),
    "swapped": (renumber((6, 99), (7, 6), (99, 7)), 6),
    "the tail cut": (["DELETE FROM audit WHERE id > 9"], 10),
    "the tail cut at a head": (["DELETE FROM audit WHERE id > 8"], 9),
    "all cut": (["DELETE FROM audit"], 1),
    "the tail and its heads cut": (["DELETE FROM audit WHERE id > 9", "DELETE FROM audit_heads WHERE id > 9"], 10),
    "a head changed": (["UPDATE audit_heads SET digest = 'ab' WHERE id = 8"], 8),
    "a head moved": (["UPDATE audit_heads SET id = 9 WHERE id = 8"], 9),
}


async def test_each_tamper_is_found_where_it_is(town: Town) -> None:
    """By the store, and by whoever reads an export, which begins with signing what is the last row by then."""
    kept, told = town.tables(), town.heads.read_bytes()
    for how, (statements, row) in TAMPERS.items():
        town.sql(*statements)
        fault = await town.store.audit.verify()
        assert fault is not None, how
        assert fault.row == row, how
        lines = await town.lines()
        assert judged(lines) == fault, how
        assert oracle.check(lines, key=PUBLIC) is not None, how
        town.bring_back(kept)
        if town.heads.read_bytes() != told:
            town.heads.write_bytes(told)
            town = open_again(town)
    assert await town.store.audit.verify() is None
    town.store.close()


@pytest.mark.parametrize("heads", ["kept", "dropped", "signed by another"])
async def test_a_chain_that_is_computed_anew_is_found_by_its_heads(town: Town, heads: str) -> None:
    kept = town.tables()
    for since, sound in ((1, 0), (6, 4)):
        town.sql(f"UPDATE audit SET writer = 'user:nobody' WHERE id = {since}")
        town.compute_anew(since)
        if heads != "kept":
            town.sql("DELETE FROM audit_heads")
        if heads == "signed by another":
            forged = Signer(bytes(32)).sign(Head(id=12, digest=town.rows()[-1]["digest"], at=1.0))
            values = ", ".join(quoted(getattr(forged, name)) for name in BOTH[1][1].split(", "))
            town.sql(f"INSERT INTO audit_heads ({BOTH[1][1]}) VALUES ({values})")
        fault = await town.store.audit.verify()
        assert fault is not None
        assert (fault.row, fault.sound) == (sound + 1, sound), "the rows after the last head that fits"
        if sound:
            break
        town.bring_back(kept)
    await town.act()
    again = await town.store.audit.verify()
    assert again is not None, "what is signed afterwards makes nothing good"
    assert again.row == sound + 1


async def test_a_cut_tail_is_found_after_new_rows_have_its_numbers(town: Town) -> None:
    town.sql("DELETE FROM audit WHERE id > 6", "DELETE FROM audit_heads WHERE id > 6")
    await town.act(times=8)
    fault = await town.store.audit.verify()
    assert fault is not None
    assert (fault.row, fault.sound) == (5, 4)


async def test_heads_that_somebody_kept_convict_a_whole_installation(town: Town) -> None:
    """Also where table and file of heads were made anew, by whoever has the key: an auditor's own copy does not fit."""
    kept = [head_of(json.loads(line)["head"]) for line in town.heads.read_bytes().splitlines()]
    town.heads.unlink()
    town.sql("DELETE FROM audit_heads", "DELETE FROM audit WHERE id > 2")
    fresh = open_again(town)
    await fresh.act(times=12)
    lines = await fresh.lines()
    assert judged(lines) is None
    fault = judged(lines, heads=kept)
    assert fault is not None
    assert fault.row == 1
    fresh.store.close()


# --- files ----------------------------------------------------------------------------------------------------------


def without(lines: list[bytes], *gone: int) -> list[bytes]:
    return [line for number, line in enumerate(lines) if number not in gone]


def shorter(line: bytes) -> bytes:
    return line.replace(b'"digest":"', b'"digest":"0') if b"head" in line else line


FILES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a row changed": lambda lines: [line.replace(b"alice", b"mally") for line in lines],
    "a row left out": lambda lines: without(lines, 3),
    "two swapped": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "the digests of heads": lambda lines: [*map(shorter, lines)],
    "a head late": lambda lines: [*without(lines, 5), lines[5]],
}


async def test_a_file_that_was_touched_is_refused(town: Town) -> None:
    lines = await town.lines()
    for how, touch in FILES.items():
        assert judged(touch(lines)) is not None, how
        assert oracle.check(touch(lines), key=PUBLIC) is not None, how


async def test_a_file_whose_end_is_missing_does_not_end_with_a_head(town: Town) -> None:
    check = FileVerifier([PUBLIC])
    for line in (await town.lines())[:-2]:
        assert check.line(line) is None
    assert check.end() is None
    assert (check.checks.last, check.checks.sound) == (11, 8), "so whoever checks it can say how much is vouched for"


async def test_a_file_of_another_key_is_trusted_by_nobody_who_knows_better(town: Town) -> None:
    other = open_again(town, bytes(32))
    town.heads.unlink()
    town.sql("DELETE FROM audit_heads")
    lines = await other.lines()
    assert judged(lines, key="") is None
    assert judged(lines) is not None
    other.store.close()


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"\xff", b'{"trail": 2, "key": "", "after": 0, "digest": ""}', b"7", b"null"]
)
def test_what_is_no_trail_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        FileVerifier().line(line)


@pytest.mark.parametrize(
    "line", [b"{}", b'{"head": {}}', b'{"head": 3}', b"[1]", b'{"id": "1"}', b'{"head": {"id": "1"}}']
)
def test_what_is_no_row_is_refused(line: bytes) -> None:
    check = FileVerifier()
    check.line(b'{"trail": 1, "key": "", "after": 0, "digest": ""}')
    with pytest.raises(Malformed):
        check.line(line)


async def test_an_old_release_beside_us_writes_rows_that_fit(town: Town) -> None:
    """It knows neither tenant nor change."""
    last = town.rows()[-1]
    old = {**last, "id": 13, "verb": "update", "change": "", "tenant": "", "allowed": True}
    old["digest"] = oracle.row_digest(last["digest"], old)
    names = [name for name in NAMES if name not in ("tenant", "change")]
    values = ", ".join(repr(int(old[name]) if name == "allowed" else old[name]) for name in names)
    town.sql(f"""INSERT INTO audit ({", ".join(f'"{name}"' for name in names)}) VALUES ({values})""")
    await town.act(times=1)
    assert await town.store.audit.verify() is None


async def test_a_trail_that_grows_while_it_is_judged_is_sound(town: Town) -> None:
    async def grow() -> None:
        for _ in range(10):
            await town.act()

    growing = asyncio.ensure_future(grow())
    while not growing.done():
        assert await town.store.audit.verify() is None
    await growing


async def test_heads_that_cannot_be_written_stop_nothing_else(town: Town) -> None:
    town.heads.unlink()
    town.heads.mkdir()
    with pytest.raises(Unavailable, match="heads of the trail"):
        await town.act()
    await town.store.objects.create(body("Thing", "later"), ALICE)
    town.heads.rmdir()
    await town.store.audit.sign()
    assert await town.store.audit.verify() is None
    assert [json.loads(line)["head"]["id"] for line in town.heads.read_bytes().splitlines()] == [17]


async def test_heads_that_cannot_be_read_are_told_as_that(town: Town) -> None:
    town.heads.unlink()
    town.heads.mkdir()
    again = open_again(town)
    for act in (again.store.audit.sign, again.store.audit.verify, again.store.audit.tidy):
        with pytest.raises(Unavailable, match="heads of the trail"):
            await act()
    again.store.close()


async def test_a_row_that_is_appended_as_the_server_would_is_taken_for_its_own(town: Town) -> None:
    """The chain has no key, as the page says: what is behind the last head is believed."""
    town.sql(another(13))
    town.compute_anew(13)
    await town.act(times=1)
    assert await town.store.audit.verify() is None
    town.sql("UPDATE audit SET verb = 'x' WHERE id = 13")
    fault = await town.store.audit.verify()
    assert fault is not None, "but from then on it stands, too"
    assert fault.row == 13
