"""Sets of hardware threads: read as they are written, and what is said of too many costs no more than of many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.cpus import CPUS_MAX, parse_cpus, parse_each, show_cpus


@given(st.sets(st.integers(0, CPUS_MAX - 1), max_size=40))
def test_what_was_written_is_read(cpus: set[int]) -> None:
    assert parse_cpus(show_cpus(cpus)) == tuple(sorted(cpus))


@pytest.mark.parametrize("words", ["0-3,2", "4,4", "0-8191,0-8191", "3-2", "8192", "-1", "a"])
def test_what_names_none_or_one_twice_is_refused(words: str) -> None:
    with pytest.raises(ValueError):
        parse_cpus(words)


def test_of_more_threads_than_there_can_be_none_is_read_to_its_end() -> None:
    read = []

    def said() -> Iterator[str]:
        for number in range(CPUS_MAX):
            read.append(number)
            yield f"0-{CPUS_MAX - 1}"

    with pytest.raises(ValueError, match="more than 8192 hardware threads"):
        parse_each(said())
    assert len(read) == 2
    assert len(parse_each(str(cpu) for cpu in range(CPUS_MAX))) == CPUS_MAX
