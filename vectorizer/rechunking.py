"""Cutting a text again after an edit, so that as few chunks as possible are new.

Chunks that still stand in the text, be it with other white space, stay; only what lies between
them is cut. Its sizes are chosen together, between paragraphs where that is possible, since the
next edit costs what the chunks it touches hold.

Replaying document-edits.jsonl with sizes of 500 to 1000, part of the characters sent and average
length: cutting each version by itself 0.1266 and 546, this way 0.1144 and 515; with a cache of all
texts ever embedded 0.1243 and 0.1135.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

from vectorizer.chunking import Chunker, section_starts
from vectorizer.html_text import html_to_text

__all__ = ["rechunk"]

# A gap shorter than this part of min_chars joins a neighbour.
_TINY = 10
# A standing chunk shorter than this part of min_chars is cut again with the gap beside it: what
# is added to little by little would else stay in little pieces.
_SHORT = 2
# A gap longer than so many times max_chars is cut like a new text: quicker, and nothing is known.
_LONG = 16
# The size aimed at lies this part of the range above min_chars.
_ABOVE = 10
# Cuts nearer to the one before than this part of max_chars are not worth a look.
_NEAR = 50

# What a cut costs in units of (size / target - 1)²: at a section, a paragraph, a line, a sentence.
_SECTION, _PARAGRAPH, _LINE, _SENTENCE = 0.0, 0.1, 0.6, 0.8
_CROSSED = 0.4  # a section that begins within a chunk
_EDGE = -0.2  # a cut between what changed and what did not

_PARAGRAPHS = re.compile(r"\n[ \t\r]*\n\s*")
_LINES = re.compile(r"\n\s*")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
_SPACE = re.compile(r"\s*")
_WORDS = re.compile(r"\S+")

# Up to so many chunks are looked for one by one, more by how they begin.
_FEW = 64
_BEGINNING = 24
_MOST_PLACES = 8  # of one chunk


def rechunk(chunker: Chunker, text: str, old: Sequence[str]) -> list[str]:
    """Return the chunks of a text, in order, of which as many as possible are among `old`.

    old: the chunks of the text as it was before, in order; any others do no harm. Nothing but
    white space is lost, `max_chars` is kept, and cutting the same text again by the result gives
    the result. Where chunks overlap, or there is one a text, `old` does not matter.
    """
    if not old or chunker.overlap or chunker.splitter == "none":
        return chunker.split(text)
    if chunker.splitter == "html":
        text = html_to_text(text)
        chunker = Chunker(
            chunker.min_chars, chunker.max_chars, splitter="markdown", unit=chunker.unit
        )
    standing = _standing(text, old)
    if chunker.unit == "characters":
        standing = _but_for_space(text, standing, old, chunker.max_chars)
    pieces = _joined(text, list(_pieces(text, standing)), chunker)
    pieces = list(_absorbed(pieces, chunker))
    known = {part.strip() for chunk in old for part in _PARAGRAPHS.split(chunk)}
    return [
        chunk
        for piece in pieces
        for chunk in ([piece.of(text)] if piece.stands else _cut(piece.of(text), chunker, known))
    ]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of the text; stands: it is an old chunk."""

    start: int
    end: int
    stands: bool

    def __len__(self) -> int:
        return self.end - self.start

    def of(self, text: str) -> str:
        return text[self.start : self.end]


# What still stands


def _standing(text: str, old: Sequence[str]) -> list[_Piece]:
    """Return where old chunks stand in the text: in order, none overlapping another."""
    head = list(_from_start(text, old))
    rest = old[len(head) :]
    start = head[-1].end if head else 0
    tail = list(_from_end(text, rest, start))
    middle = rest[: len(rest) - len(tail)]
    end = tail[-1].start if tail else len(text)
    return [*head, *_between(text, middle, start, end), *reversed(tail)]


def _from_start(text: str, old: Sequence[str]) -> Iterator[_Piece]:
    at = 0
    for chunk in old:
        at = _after_space(text, at)
        if not chunk or not text.startswith(chunk, at):
            return
        yield _Piece(at, at + len(chunk), stands=True)
        at += len(chunk)


def _from_end(text: str, old: Sequence[str], start: int) -> Iterator[_Piece]:
    end = len(text)
    for chunk in reversed(old):
        end = _before_space(text, start, end)
        if not chunk or not text.endswith(chunk, start, end):
            return
        yield _Piece(end - len(chunk), end, stands=True)
        end -= len(chunk)


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _before_space(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


def _between(text: str, old: Sequence[str], start: int, end: int) -> list[_Piece]:
    return _in_order(old, _found(text, old, start, end))


def _found(text: str, old: Sequence[str], start: int, end: int) -> list[tuple[int, int]]:
    places = _places if len(old) <= _FEW else _places_of_many
    return [(number, at) for number, at in places(text, old, start, end) if old[number]]


def _in_order(old: Sequence[str], found: list[tuple[int, int]]) -> list[_Piece]:
    # Of one chunk the later places come first, so that a chain holds one of them at most.
    found.sort(key=lambda place: (place[0], -place[1]))
    pieces: list[_Piece] = []
    for number, at in _longest_chain(found):
        if not pieces or pieces[-1].end <= at:
            pieces.append(_Piece(at, at + len(old[number]), stands=True))
    return pieces


def _places(text: str, old: Sequence[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    for number, chunk in enumerate(old):
        at = text.find(chunk, start, end)
        for _ in range(_MOST_PLACES):
            if at < 0:
                break
            yield number, at
            at = text.find(chunk, at + 1, end)


def _places_of_many(
    text: str, old: Sequence[str], start: int, end: int
) -> Iterator[tuple[int, int]]:
    by_beginning: dict[str, list[int]] = defaultdict(list)
    for number, chunk in enumerate(old):
        by_beginning[chunk[:_BEGINNING]].append(number)
    for match in _WORDS.finditer(text, start, end):
        at = match.start()
        for number in by_beginning.get(text[at : at + _BEGINNING], ())[:_MOST_PLACES]:
            if text.startswith(old[number], at, end):
                yield number, at


def _but_for_space(
    text: str, standing: Sequence[_Piece], old: Sequence[str], most: int
) -> list[_Piece]:
    """Add where old chunks stand with other white space, of at most `most` characters then."""
    left = Counter(old) - Counter(piece.of(text) for piece in standing)
    wanted = [" ".join(chunk.split()) for chunk in old if chunk in left]
    gaps = [piece for piece in _pieces(text, standing) if not piece.stands] if wanted else []
    found = (piece for piece in _worded(text, gaps, wanted) if len(piece) <= most)
    return sorted([*standing, *found], key=lambda piece: piece.start)


def _worded(text: str, gaps: Sequence[_Piece], wanted: Sequence[str]) -> Iterator[_Piece]:
    """Yield where the words of chunks stand in gaps; wanted: those words, a space between."""
    words_of = [list(_WORDS.finditer(text, gap.start, gap.end)) for gap in gaps]
    words = list(chain.from_iterable(words_of))
    starts = [0, *accumulate(len(word[0]) + 1 for word in words)]
    # What is wanted holds no line break, so that it is found within one gap.
    line = "\n".join(" ".join(word[0] for word in of_gap) for of_gap in words_of)
    ends = [place for place, character in enumerate(line) if character == "\n"]
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, at in _found(line, wanted, 0, len(line)):
        found[bisect_left(ends, at)].append((number, at))
    for piece in chain.from_iterable(_in_order(wanted, places) for places in found.values()):
        first, after = bisect_left(starts, piece.start), bisect_left(starts, piece.end + 1)
        if (starts[first], starts[after]) == (piece.start, piece.end + 1):  # whole words
            yield _Piece(words[first].start(), words[after - 1].end(), stands=True)


def _longest_chain(found: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the most places whose positions increase, as their numbers do (patience sorting)."""
    tops: list[int] = []
    chains: list[int] = []
    before: list[int | None] = []
    for index, (_, at) in enumerate(found):
        length = bisect_left(tops, at)
        tops[length : length + 1] = [at]
        chains[length : length + 1] = [index]
        before.append(chains[length - 1] if length else None)
    chain = []
    index_of: int | None = chains[-1] if chains else None
    while index_of is not None:
        chain.append(found[index_of])
        index_of = before[index_of]
    return chain[::-1]


# What lies between


def _pieces(text: str, standing: Sequence[_Piece]) -> Iterator[_Piece]:
    """Yield what stands and the gaps between, blank ones left out."""
    at = 0
    for piece in [*standing, _Piece(len(text), len(text), stands=True)]:
        if text[at : piece.start].strip():
            yield _Piece(at, piece.start, stands=False)
        if len(piece):
            yield piece
        at = piece.end


def _joined(text: str, pieces: list[_Piece], chunker: Chunker) -> list[_Piece]:
    """Join each tiny gap with the shorter of its neighbours, to be cut together."""
    joined: list[_Piece] = []
    for number, piece in enumerate(pieces):
        if joined and joined[-1].end > piece.start:
            continue  # was joined to the one before
        if piece.stands or len(piece.of(text).strip()) >= chunker.min_chars // _TINY:
            joined.append(piece)
            continue
        before = joined[-1] if joined else None
        after = pieces[number + 1] if number + 1 < len(pieces) else None
        if before is not None and (after is None or len(before) <= len(after)):
            joined[-1] = _Piece(before.start, piece.end, stands=False)
        elif after is not None:
            joined.append(_Piece(piece.start, after.end, stands=False))
        else:
            joined.append(piece)
    return joined


def _absorbed(pieces: Sequence[_Piece], chunker: Chunker) -> Iterator[_Piece]:
    """Join each gap with a short neighbour, if both fit into a chunk."""
    last: _Piece | None = None
    for piece in pieces:
        if last is not None and _belong_together(last, piece, chunker):
            last = _Piece(last.start, piece.end, stands=False)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _belong_together(one: _Piece, other: _Piece, chunker: Chunker) -> bool:
    if one.stands and other.stands:
        return False
    short = chunker.min_chars / _SHORT
    is_short = any(piece.stands and len(piece) < short for piece in (one, other))
    return is_short and other.end - one.start <= chunker.max_chars


def _cut(gap: str, chunker: Chunker, known: set[str]) -> list[str]:
    """Cut a gap; known: the paragraphs there were before."""
    if chunker.unit == "tokens" or len(gap) > chunker.max_chars * _LONG:
        return chunker.split(gap)
    cuts = _cuts(gap, chunker.max_chars, known)
    if any(end - start > chunker.max_chars for start, end in pairwise(cuts)):
        return chunker.split(gap)  # there are words or lines longer than a chunk
    chunks = (gap[start:end].strip() for start, end in pairwise(_best(cuts, gap, chunker)))
    return [chunk for chunk in chunks if chunk]


def _cuts(gap: str, most: int, known: set[str]) -> dict[int, float]:
    """Return where the gap may be cut, in order, and what each cut costs."""
    costs: dict[int, float] = {}
    for pattern, cost in ((_SENTENCES, _SENTENCE), (_LINES, _LINE)):
        costs.update((match.end(), cost) for match in pattern.finditer(gap))
    paragraphs = {match.end() for match in _PARAGRAPHS.finditer(gap)}
    costs.update(dict.fromkeys(paragraphs, _PARAGRAPH))
    sections = dict.fromkeys(section_starts(gap), _SECTION)
    costs.update(sections)
    for edge in _edges(gap, sorted(paragraphs.union(sections)), known):
        costs[edge] += _EDGE
    kept = {0: 0.0}
    latest = 0
    for at in sorted(costs):
        if 0 < at < len(gap) and (costs[at] <= _PARAGRAPH or at - latest >= most / _NEAR):
            kept[at] = costs[at]
            latest = at
    kept[len(gap)] = 0.0
    return kept


def _edges(gap: str, cuts: Sequence[int], known: set[str]) -> Iterator[int]:
    """Yield the cuts between a paragraph that was there before and one that was not."""
    stretches = list(pairwise([0, *(cut for cut in cuts if 0 < cut < len(gap)), len(gap)]))
    old = [gap[start:end].strip() in known for start, end in stretches]
    for (_, end), is_old, next_is_old in zip(stretches, old, old[1:], strict=False):
        if is_old != next_is_old:
            yield end


def _best(costs: dict[int, float], gap: str, chunker: Chunker) -> list[int]:
    """Return the cuts that cost least in all, both ends with them."""
    target = chunker.min_chars + (chunker.max_chars - chunker.min_chars) // _ABOVE
    cuts = list(costs)
    sections = sorted(section_starts(gap))
    best, before = [0.0], [0]
    for index in range(1, len(cuts)):
        end, lowest, chosen = cuts[index], float("inf"), index - 1
        for start_index in range(index - 1, -1, -1):
            start = cuts[start_index]
            if end - start > chunker.max_chars:
                break
            crossed = bisect_left(sections, end) - bisect_right(sections, start)
            size = (end - start) / target - 1
            cost = best[start_index] + size * size + _CROSSED * crossed
            if cost < lowest:
                lowest, chosen = cost, start_index
        best.append(lowest + costs[end])
        before.append(chosen)
    chain = [len(cuts) - 1]
    while chain[-1]:
        chain.append(before[chain[-1]])
    return [cuts[index] for index in reversed(chain)]
