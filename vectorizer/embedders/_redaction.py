"""What a message must not show: keys, and the texts that a server quotes in its complaint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

__all__ = ["hide", "one_line"]


def hide(message: str, hidden: Sequence[str], run: int) -> str:
    """Put an ellipsis for all of `hidden` in `message`.

    That is for every stretch of `run` or more characters that occurs in one of them, since
    servers quote in part, and for the shorter ones where they stand as words.
    """
    marks = bytearray(len(message))
    for start, stop in _found(message, hidden, run):
        marks[start:stop] = bytes([1]) * (stop - start)
    groups = groupby(zip(marks, message, strict=True), key=itemgetter(0))
    return "".join("…" if mark else "".join(c for _, c in group) for mark, group in groups)


def _found(message: str, hidden: Sequence[str], run: int) -> Iterator[tuple[int, int]]:
    everything = "\0".join(hidden)
    for start in range(len(message) - run + 1):
        if message[start : start + run] in everything:
            yield start, start + run
    for short in hidden:
        if 0 < len(short) < run and short in message:
            word = rf"(?<!\w){re.escape(short)}(?!\w)"
            yield from (match.span() for match in re.finditer(word, message))


def one_line(text: str) -> str:
    # A quoted text may have its line ends written as escapes.
    return re.sub(r"(?:\s|\\[nrt])+", " ", text).strip()
