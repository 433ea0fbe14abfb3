"""What is new for a tab: operations in an order that can be done, in messages of bounded size, lost in no gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import orjson
from hypothesis import given
from hypothesis import strategies as st

from bessemer.portal.live import MESSAGE_BYTES_MAX, Page, Part, Tab, difference, packed


@dataclass(frozen=True, slots=True)
class Word(Part):
    macro: ClassVar[str] = "word"

    text: str = ""


def draw(part: Part) -> str:
    return f"<{part.id}:{part.text}>" if isinstance(part, Word) else ""


def words(spec: str) -> list[Word]:
    """``a1 b2`` → parts a and b with those texts."""
    return [Word(word[0], word[1:]) for word in spec.split()]


def applied(before: list[Word], after: list[Word]) -> list[str]:
    """What a browser shows that does the operations."""
    shown = {p.id: draw(p) for p in before}
    order = [p.id for p in before]
    for name, *rest in difference("list", before, after=after, draw=draw):
        if name == "del":
            order.remove(rest[0])
        elif name == "set":
            assert rest[0] in order
            shown[rest[0]] = rest[1]
        elif name == "put":
            _, following, html = rest
            made = html[1]
            shown[made] = html
            order.insert(order.index(following) if following else len(order), made)
        else:
            order = sorted(order, key=rest[1].index)
    return [shown[i] for i in order]


def test_nothing_new_is_nothing_sent() -> None:
    assert list(difference("list", words("a1 b2"), after=words("a1 b2"), draw=draw)) == []


def test_a_new_part_goes_before_its_sibling() -> None:
    found = list(difference("list", words("b2"), after=words("a1 b2 c3"), draw=draw))
    assert found == [["put", "list", None, "<c:3>"], ["put", "list", "b", "<a:1>"]]


part_lists = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3)), unique_by=lambda pair: pair[0], max_size=8
).map(lambda pairs: [Word(name, str(number)) for name, number in pairs])


@given(part_lists, part_lists)
def test_operations_lead_from_any_list_to_any_other(before: list[Word], after: list[Word]) -> None:
    assert applied(before, after) == [draw(p) for p in after]


def test_messages_are_small() -> None:
    operations = [["set", f"id-{i}", "x" * 150] for i in range(200)]
    messages = list(packed("token", operations, number=7))
    assert len(messages) > 10
    assert max(map(len, messages)) <= MESSAGE_BYTES_MAX + 100
    assert [op for m in messages for op in orjson.loads(m)["o"]] == operations
    assert [orjson.loads(m).get("n") for m in messages] == [None] * (len(messages) - 1) + [7]


def test_a_browser_that_comes_back_misses_nothing() -> None:
    now = words("a1")
    tab = Tab(lambda: Page("t", "T", {"list": now}), {"list": words("a0")})
    assert list(tab.news(draw)) != []
    assert tab.number == 1
    now = words("a2")
    assert list(tab.news(draw)) != []
    assert tab.resume(0), "what number 2 said was lost on the way, and number 1 too"
    assert orjson.loads(next(tab.news(draw)))["o"] == [["set", "a", "<a:2>"]]
    assert not tab.resume(99)
