"""Templates: what of a row goes to the embedder together with a chunk of its text.

`columns` must name what the SQL function `template_columns` finds in the same text: that is
what installing checks against the source table, and what capture watches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from vectorizer.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Template"]

CHUNK = "chunk"

# Doubled braces come first, as in str.format: "{{{a}}}" is a brace, the column a, a brace.
_TOKEN = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>[^{}]*)\}|(?P<stray>[{}])|[^{}]+")

# What str.format would do with a name that holds one of these; none of it is safe or needed here.
_REFUSED = {
    "!": "a conversion",
    ":": "a format specification",
    ".": "attribute access",
    "[": "indexing",
    "]": "indexing",
}

_ALLOWED = (
    "allowed are column names in braces such as {title}, {chunk} for the piece of text, "
    "and {{ or }} for a literal brace"
)


@dataclass(frozen=True)
class Template:
    """A text with column names in braces, such as ``Title: {title}, contents: {chunk}``.

    `{chunk}` stands for the chunk itself and must occur; `{{` and `}}` are literal braces.
    Anything else that `str.format` knows raises `TemplateError`.
    """

    text: str = "{chunk}"
    _parts: tuple[tuple[str, bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = tuple(_parse(self.text))
        if (CHUNK, True) not in parts:
            raise TemplateError(f"template {self.text!r} lacks {{chunk}}; {_ALLOWED}")
        object.__setattr__(self, "_parts", parts)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns the template names, each once, in order of first use, without `chunk`."""
        names = (part for part, is_name in self._parts if is_name and part != CHUNK)
        return tuple(dict.fromkeys(names))

    def render(self, values: Mapping[str, str | None], chunk: str) -> str:
        """Return the text to embed.

        `values` holds the text form of each column in `columns`, None for NULL, which renders
        as nothing. Values and chunk are data: braces in them mean nothing.
        """
        # The chunk comes last, so that a column of that name cannot hide it.
        known = {**values, CHUNK: chunk}
        try:
            return "".join(
                [(known[part] or "") if is_name else part for part, is_name in self._parts]
            )
        except KeyError as missing:
            raise TemplateError(
                f"template {self.text!r} names {missing}, of which there is no value; "
                f"there are: {', '.join(sorted(values)) or 'none'}"
            ) from None

    def chunk_of(self, values: Mapping[str, str | None], text: str) -> str | None:
        """Return the chunk of which `render` makes this text with these values.

        None if it does not, or if the template repeats the chunk.
        """
        if self._parts.count((CHUNK, True)) != 1:
            return None
        at = self._parts.index((CHUNK, True))
        before, after = (
            "".join((values[part] or "") if is_name else part for part, is_name in parts)
            for parts in (self._parts[:at], self._parts[at + 1 :])
        )
        if not text.startswith(before) or not text[len(before) :].endswith(after):
            return None
        return text[len(before) : len(text) - len(after)]


def _parse(text: str) -> Iterator[tuple[str, bool]]:
    """Yield literal texts (False) and names (True) in order."""
    for token in _TOKEN.finditer(text):
        if token["stray"]:
            raise TemplateError(
                f"template {text!r} has an unpaired {token[0]} at character {token.start() + 1}; "
                f"{_ALLOWED}"
            )
        if token["brace"]:
            yield token[0][0], False
        elif token["name"] is None:
            yield token[0], False
        else:
            yield _checked(token["name"], text), True


def _checked(name: str, text: str) -> str:
    refused = next((_REFUSED[char] for char in name if char in _REFUSED), None)
    if not name or name.isdecimal():
        refused = "a positional field"
    if refused:
        raise TemplateError(f"template {text!r} has {{{name}}}, {refused}; {_ALLOWED}")
    return name
