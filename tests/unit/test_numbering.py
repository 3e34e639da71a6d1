from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vectorizer.numbering import numbers

KNOWN = st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=40)


@given(KNOWN)
def test_numbers_increase_and_fit(known: list[int | None]) -> None:
    found = numbers(known)
    assert len(found) == len(known)
    assert all(before < after for before, after in pairwise(found))
    assert all(-(2**31) <= number < 2**31 for number in found)


@given(KNOWN)
def test_numbers_stay(known: list[int | None]) -> None:
    found = numbers(known)
    assert numbers(found) == found


def test_a_short_text_is_numbered_from_zero() -> None:
    assert numbers([None, 7, 3]) == [0, 1, 2]
    assert numbers([]) == []


def test_a_chunk_put_in_between_changes_no_other() -> None:
    known = numbers([None] * 100)
    for place in (0, 1, 50, 100):
        assert [n for n in numbers([*known[:place], None, *known[place:]]) if n in known] == known


def test_a_chunk_that_moves_changes_no_other() -> None:
    known = numbers([None] * 100)
    moved = [*known[1:], known[0]]
    assert sum(new != old for new, old in zip(numbers(moved), moved, strict=True)) == 1


def test_without_room_all_are_numbered_anew() -> None:
    known: list[int | None] = list(range(20))
    found = numbers([*known[:10], None, *known[10:]])
    assert found == [1024 * n for n in range(21)]


def test_there_is_room_for_many_in_one_place() -> None:
    known: list[int] = numbers([None] * 10)
    changed = 0
    for _ in range(200):
        wanted = [*known[:5], None, *known[5:]]
        found = numbers(wanted)
        changed += sum(a is not None and a != b for a, b in zip(wanted, found, strict=True))
        known = found
    assert changed < 200 * 15
