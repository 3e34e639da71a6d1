"""What one call of an embedder takes, and texts packed into as few calls as that allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vectorizer.tokens import Cutter, estimate_tokens
from vectorizer.types import Embedder

__all__ = ["Limits", "batch_rows", "limits_of", "pack"]

# For embedders that name no limit: enough to fill any model, and memory stays bounded.
_MAX_TEXTS = 2048
# Rows of a batch.
_FEWEST_ROWS, _MOST_ROWS = 200, 768


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an embedder; see `vectorizer.types.Embedder` for where they come from.

    max_texts, max_tokens: of one call. max_text_tokens: of one text.
    concurrency: calls that may be under way at once.
    count: tokens of a text; cut: pieces of a text of at most so many tokens.
    """

    max_texts: int = _MAX_TEXTS
    max_tokens: int | None = None
    max_text_tokens: int | None = None
    concurrency: int = 1
    count: Callable[[str], int] = estimate_tokens
    cut: Cutter | None = None

    def pieces(self, text: str, reserve: int = 0) -> list[str]:
        """Cut a text so that each piece and `reserve` tokens fit; not if the limit is unknown."""
        if self.max_text_tokens is None or self.cut is None:
            return [text]
        return self.cut(text, max(self.max_text_tokens - reserve, 1))

    def fits(self, text: str) -> bool:
        """Whether a text is short enough, as far as we know."""
        return len(self.pieces(text)) == 1


def limits_of(embedder: Embedder) -> Limits:
    """Return the limits that an embedder names, and our own where it names none."""
    named = {
        name: value
        for name, attribute in (
            ("max_texts", "max_texts"),
            ("max_tokens", "max_tokens"),
            ("max_text_tokens", "max_text_tokens"),
            ("concurrency", "concurrency"),
            ("count", "count_tokens"),
            ("cut", "cut"),
        )
        if (value := getattr(embedder, attribute, None)) is not None
    }
    return Limits(**named)


def batch_rows(embedder: Embedder) -> int:
    """Return how many rows to claim at once where nobody says it.

    A third of the texts that the embedder takes at once, in all its calls: of the four batches
    that a worker has in flight by default three are at the model. About 200 at least, as where no
    limit is named; at most 768, which keep a worker with vectors of 1,536 dimensions below 200 MB.
    Full calls, if several are needed.
    """
    if getattr(embedder, "max_texts", None) is None:
        return _FEWEST_ROWS
    limits = limits_of(embedder)
    rows = min(max(limits.max_texts * limits.concurrency // 3, _FEWEST_ROWS), _MOST_ROWS)
    return rows - rows % limits.max_texts if rows > limits.max_texts else rows


def pack(texts: Sequence[str], limits: Limits) -> Iterator[slice]:
    """Cut `texts` into the fewest runs that keep the limits; a text over them goes alone."""
    start = tokens = 0
    most = limits.max_tokens
    for position, text in enumerate(texts):
        size = 0 if most is None else limits.count(text)
        full = position - start == limits.max_texts or (most is not None and tokens + size > most)
        if full and position > start:
            yield slice(start, position)
            start, tokens = position, 0
        tokens += size
    if len(texts) > start:
        yield slice(start, len(texts))
