"""Numbers that say in which order chunks stand, of which an edit changes few.

A short text's chunks are numbered 0, 1, 2 …; those of a long one have gaps between them, so that
a chunk put in between needs no other to be written again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

__all__ = ["numbers"]

# Up to so many chunks may be written again for one.
_SHORT = 8
_STEP = 1024
_MOST = 2**30  # well within PostgreSQL's integer


def numbers(known: Sequence[int | None]) -> list[int]:
    """Return strictly increasing numbers for chunks in order, as many as possible as they were.

    known: the number each chunk has, None for a new one.
    """
    if len(known) <= _SHORT:
        return list(range(len(known)))
    found = list(_between(known, _increasing(known)))
    if len(found) == len(known) and found[0] > -_MOST and found[-1] < _MOST:
        return found
    return [_STEP * place for place in range(len(known))]


def _between(known: Sequence[int | None], kept: Sequence[int]) -> Iterator[int]:
    """Yield numbers for all places; too few of them if there is no room for some."""
    last, place = None, 0
    for end in [*kept, len(known)]:
        following = known[end] if end < len(known) else None
        yield from _spread(last, following, end - place)
        if following is not None:
            yield following
        last, place = following, end + 1


def _spread(low: int | None, high: int | None, count: int) -> Iterator[int]:
    """Yield `count` numbers between two, none if there is no room; None is no bound."""
    if low is None:
        low = -_STEP if high is None else high - _STEP * (count + 1)
    if high is None:
        high = low + _STEP * (count + 1)
    if high - low > count:
        yield from (low + (high - low) * number // (count + 1) for number in range(1, count + 1))


def _increasing(known: Sequence[int | None]) -> list[int]:
    """Return the most places whose numbers increase (patience sorting)."""
    tops: list[int] = []
    places: list[int] = []
    before: dict[int, int | None] = {}
    for place, number in enumerate(known):
        if number is None:
            continue
        length = bisect_left(tops, number)
        tops[length : length + 1] = [number]
        places[length : length + 1] = [place]
        before[place] = places[length - 1] if length else None
    chain = []
    at = places[-1] if places else None
    while at is not None:
        chain.append(at)
        at = before[at]
    return chain[::-1]
