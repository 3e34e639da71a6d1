"""Cutting a text into chunks so that an edit of it changes few of them.

Sections come first: a chunk never crosses a heading (unless a section is tiny), so an edit
shifts no chunk beyond its section. Inside a section semantic-text-splitter chooses the cuts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

from vectorizer.errors import ConfigurationError
from vectorizer.html_text import html_to_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semantic_text_splitter import MarkdownSplitter, TextSplitter

__all__ = ["SPLITTERS", "UNITS", "Chunker", "section_starts"]

SPLITTERS = ("text", "markdown", "html", "none")
UNITS = ("characters", "tokens")

# The vocabulary of text-embedding-3-*, which comes with the splitter.
_TOKENS_OF = "text-embedding-3-small"
# A token is about so many characters, and never more tokens than bytes.
_CHARS_OF_TOKEN = 4

# A section shorter than this part of min_chars (a bare heading, mostly) joins the next one.
# Replaying document-edits.jsonl with (500, 1000), characters sent and average length: joining
# none 0.1337 and 527, below min/5 0.1346 and 546, below min 0.1429 and 590.
_SMALL = 5

# The splitter is quadratic in the worst case (160 kB without white space: 0.25 s), so it gets
# at most this many times max_chars at once: 16 changes the ratio above by less than 0.0005.
_SPLIT_AT_ONCE = 16

# Lines worth a look: everything below is asked of these alone.
_CANDIDATE = re.compile(r"^ {0,3}(?:#|([!-/:-@\[-`{-~])\1\1)[^\n]*", re.MULTILINE)
_ATX = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_RULE = re.compile(r" {0,3}([!-/:-@\[-`{-~])\1{2,}")
_TITLE = re.compile(rf"(?!{_ATX.pattern}|{_RULE.pattern}$) {{0,3}}\S")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")

# Where a long section may be cut before it goes to the splitter, best first.
_BREAKS = tuple(
    re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"[.!?]\s+|[\u3002\uff01\uff1f]", r"\s+")
)


@dataclass(frozen=True)
class Chunker:
    """Cuts texts into chunks of `min_chars` to `max_chars` characters.

    `max_chars` is never exceeded; a chunk is shorter than `min_chars` where a section ends or
    what follows would not fit. `overlap` is the most characters that a chunk repeats of the
    one before it; the first chunk of a section (of a piece, if it is very long) repeats none.

    splitter: "text"; "markdown" cuts between its blocks (paragraphs, lists, tables, code) first;
    "html" takes the text out of the markup first; "none" makes one chunk, however long.
    unit: what the sizes count, "characters" or "tokens", the latter of OpenAI's models.
    """

    min_chars: int = 500
    max_chars: int = 1000
    overlap: int = 0
    splitter: str = "text"
    unit: str = "characters"

    def __post_init__(self) -> None:
        _check("min_chars", self.min_chars, 1, None)
        _check("max_chars", self.max_chars, self.min_chars, None)
        _check("overlap", self.overlap, 0, self.min_chars - 1)
        _choose("splitter", self.splitter, SPLITTERS)
        _choose("chunk_unit", self.unit, UNITS)

    def split(self, text: str) -> list[str]:
        """Return the chunks of `text` in order: trimmed, none of them blank.

        The same text always gives the same chunks, and without overlap nothing but white
        space is lost. A blank text has no chunks.
        """
        if self.splitter == "html":
            text = html_to_text(text)
        if self.splitter == "none" or ("\n" not in text and self._surely_fits(text)):
            # Most short rows: one chunk, found without asking the splitter.
            return [text.strip()] if text.strip() else []
        markdown = self.splitter != "text"
        splitter = _splitter(self.min_chars, self.max_chars, self.overlap, self.unit, markdown)
        chars = _CHARS_OF_TOKEN if self.unit == "tokens" else 1
        chunks = (
            chunk.strip()
            for section in _sections(text, self.min_chars * chars // _SMALL)
            for piece in _pieces(section, self.max_chars * chars * _SPLIT_AT_ONCE)
            for chunk in splitter.chunks(piece)
        )
        # The splitter trims what Rust calls white space; str.strip knows four characters more.
        return [chunk for chunk in chunks if chunk]

    def _surely_fits(self, text: str) -> bool:
        if self.unit == "characters":
            return len(text) <= self.max_chars
        return len(text.encode(errors="surrogatepass")) <= self.max_chars


def _choose(option: str, value: str, choice: tuple[str, ...]) -> None:
    if value not in choice:
        raise ConfigurationError(f"{option} must be one of {', '.join(choice)}, not {value!r}")


def _check(option: str, value: int, least: int, most: int | None) -> None:
    # JSON has numbers like 500.5 and true.
    if type(value) is int and least <= value and (most is None or value <= most):
        return
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    raise ConfigurationError(f"{option} must be a whole number of {allowed}, not {value!r}")


@cache
def _splitter(
    least: int,
    most: int,
    overlap: int,
    unit: str = "characters",
    markdown: bool = False,
) -> TextSplitter | MarkdownSplitter:
    # Imported at first use: most processes that import the package never cut a text.
    from semantic_text_splitter import MarkdownSplitter, TextSplitter  # noqa: PLC0415

    kind = MarkdownSplitter if markdown else TextSplitter
    if unit == "tokens":
        return kind.from_tiktoken_model(_TOKENS_OF, (least, most), overlap=overlap)
    return kind((least, most), overlap=overlap)


def _sections(text: str, smallest: int) -> list[str]:
    """Cut before each heading, unless less than `smallest` characters would stand alone."""
    cuts = [0]
    for start in section_starts(text):
        if len(text[cuts[-1] : start].strip()) >= smallest:
            cuts.append(start)
    if len(cuts) > 1 and len(text[cuts[-1] :].strip()) < smallest:
        cuts.pop()
    return [text[start:end] for start, end in pairwise([*cuts, len(text)])]


def section_starts(text: str) -> Iterator[int]:
    """Yield where headings begin, in order; lines in fenced code are none."""
    fence = ""
    for match in _CANDIDATE.finditer(text):
        line = match[0].rstrip()
        if fence:
            if line.lstrip().startswith(fence) and _RULE.fullmatch(line):
                fence = ""
        elif (start := _underlined(text, match.start(), line)) is not None:
            yield start
        elif opening := _FENCE.match(line):
            fence = opening[1]
        elif _ATX.match(line):
            yield match.start()


def _underlined(text: str, at: int, line: str) -> int | None:
    """Return where the title begins that `line`, which begins at `at`, underlines, if any."""
    if not _RULE.fullmatch(line):
        return None
    start, title = _line_before(text, at)
    # A shorter run is no underline but a thematic break, a code fence or the end of front matter.
    if not _TITLE.match(title) or len(title) > len(line):
        return None
    over, overline = _line_before(text, start)
    framed = overline == line and not _line_before(text, over)[1]
    return over if framed else start


def _line_before(text: str, at: int) -> tuple[int, str]:
    """Return the start of the line before the one that begins at `at`, and that line."""
    end = max(at - 1, 0)
    start = text.rfind("\n", 0, end) + 1
    return start, text[start:end].rstrip()


def _pieces(section: str, most: int) -> Iterator[str]:
    """Cut a section into pieces of at most `most` characters, and all but the last of half that."""
    start = 0
    while len(section) - start > most:
        end = _break(section, start + most // 2, start + most)
        yield section[start:end]
        start = end
    yield section[start:]


def _break(text: str, low: int, high: int) -> int:
    """Choose a cut between `low` and `high`: behind a paragraph, line, sentence or word."""
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends:
            # By content, not by position: after an edit further up the same cut wins again.
            return min(ends, key=lambda end: crc32(text[end : end + 64].encode()))
    return high
