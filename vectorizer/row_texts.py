"""The texts of a row that go to the model: chunks in their template, none longer than it takes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vectorizer.chunking import Chunker
from vectorizer.errors import ConfigurationError, InputTooLong
from vectorizer.limits import Limits
from vectorizer.rechunking import rechunk
from vectorizer.template import Template
from vectorizer.tokens import halves

__all__ = ["LONG_TEXT_POLICIES", "TextMaker"]

LONG_TEXT_POLICIES = ("split", "truncate", "dead-letter")

# What the template adds may take this part of the model's limit before we give up on splitting.
_MOST_OVERHEAD = 0.5


@dataclass(frozen=True)
class TextMaker:
    """Makes the texts of a row.

    on_long_text: what becomes of a text too long for the model. "split": its chunk is cut into
    as many as it takes, each in the template. "truncate": its end is left out, up to a break
    between paragraphs, sentences or words. "dead-letter": the row fails.
    """

    template: Template
    chunker: Chunker
    limits: Limits = field(default_factory=Limits)
    on_long_text: str = "split"

    def __post_init__(self) -> None:
        if self.on_long_text not in LONG_TEXT_POLICIES:
            raise ConfigurationError(
                f"on_long_text must be one of {', '.join(LONG_TEXT_POLICIES)}, "
                f"not {self.on_long_text!r}"
            )

    def texts(
        self,
        columns: Sequence[str | None],
        stored: Iterable[str] = (),
        refused: Container[str] = (),
    ) -> list[str]:
        """Return the texts of a row, in order, none of them blank.

        columns: the chunk column, then the template's. stored: texts made of the row before, in
        order: chunks of them that still stand in it stay as they are. refused: texts that the
        model said are too long, whatever we counted.

        Raises InputTooLong if a text is too long and the policy does not allow to shorten it.
        """
        content, *others = columns
        if content is None:
            return []
        values = dict(zip(self.template.columns, others, strict=True))
        return [
            text
            for chunk in rechunk(self.chunker, content, self._chunks(values, stored))
            for text in self._fit(values, chunk, refused)
        ]

    def _chunks(self, values: Mapping[str, str | None], stored: Iterable[str]) -> list[str]:
        # Where a column of the template changed, every text is new whatever its chunk.
        chunks = (self.template.chunk_of(values, text) for text in stored)
        return [chunk for chunk in chunks if chunk]

    def _fit(
        self, values: Mapping[str, str | None], chunk: str, refused: Container[str]
    ) -> Iterator[str]:
        text = self.template.render(values, chunk)
        if self._fits(text, refused):
            yield text
        elif self.on_long_text == "truncate":
            yield self._truncated(text, refused)
        elif self.on_long_text == "split":
            for piece in self._pieces(values, chunk, refused=text in refused):
                yield from self._fit(values, piece, refused)
        else:
            raise InputTooLong(
                f"a text of {len(text)} characters is longer than the model takes; allow "
                f'on_long_text = "split" or "truncate", or make chunk_size smaller'
            )

    def _fits(self, text: str, refused: Container[str]) -> bool:
        return text not in refused and self.limits.fits(text)

    def _truncated(self, text: str, refused: Container[str]) -> str:
        while not self._fits(text, refused):
            shorter = halves(text) if text in refused else self.limits.pieces(text)
            text = shorter[0].rstrip() or shorter[0]
        return text

    def _pieces(
        self, values: Mapping[str, str | None], chunk: str, *, refused: bool
    ) -> Iterator[str]:
        """Cut a chunk that is too long in its template."""
        overhead = self.limits.count(self.template.render(values, ""))
        most = self.limits.max_text_tokens
        if most is not None and overhead > most * _MOST_OVERHEAD:
            raise InputTooLong(
                f"the template takes {overhead} of the {most} tokens of a text without its chunk; "
                f"name fewer or shorter columns in it"
            )
        pieces = [chunk] if refused else self.limits.pieces(chunk, overhead)
        if len(pieces) == 1:
            pieces = halves(chunk)  # no count tells where to cut
        return (piece.strip() for piece in pieces if piece.strip())
