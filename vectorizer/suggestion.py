"""A first definition for a table, guessed from its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vectorizer.errors import SourceError

__all__ = ["Column", "Suggestion", "suggest"]

_TEXTS = ("text", "character varying", "character", "citext")
_TIMES = ("timestamp", "date")
_PUBLISHED = ("publish", "posted", "created", "date", "time")
_TITLES = ("title", "subject", "headline", "name")
# Values longer than that on average are content, not something to filter by.
_LABEL_LENGTH = 60
_MOST_METADATA = 5


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type as SQL, whether it is part of the primary key, its values' length."""

    name: str
    type: str
    key: bool
    length: float

    @property
    def is_text(self) -> bool:
        """Whether it can be embedded."""
        return self.type.startswith(_TEXTS)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What may be wanted; the user knows better."""

    chunk_column: str
    template: str | None
    metadata: tuple[str, ...]
    time_column: str | None


def suggest(columns: Sequence[Column]) -> Suggestion:
    """Return a first definition: the longest text is the content, a title goes before it.

    Raises SourceError if no column holds text.
    """
    texts = [column for column in columns if column.is_text and not column.key]
    if not texts:
        raise SourceError(
            f"no column of the table holds text to embed; its columns are: "
            f"{', '.join(column.name for column in columns)}"
        )
    content = max(texts, key=lambda column: column.length)
    others = [column for column in columns if column is not content and not column.key]
    title = _first(_TITLES, [column for column in others if column.is_text])
    labels = [
        column.name
        for column in others
        if column.is_text and 0 < column.length <= _LABEL_LENGTH and column.name != title
    ]
    return Suggestion(
        chunk_column=content.name,
        template=f"{{{title}}}: {{chunk}}" if title else None,
        metadata=tuple(labels[:_MOST_METADATA]),
        time_column=_first(_PUBLISHED, [c for c in others if c.type.startswith(_TIMES)]),
    )


def _first(words: Sequence[str], columns: Sequence[Column]) -> str | None:
    for word in words:
        for column in columns:
            if word in column.name.lower():
                return column.name
    return None
