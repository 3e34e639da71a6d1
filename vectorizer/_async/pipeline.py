"""The built-in pipeline: template, chunks, what is stored already, and only then the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vectorizer.batch import Done, Failed, Gone, LoadedRow, Outcome, Unchanged
from vectorizer.concurrency import call_async
from vectorizer.definition import Definition
from vectorizer.diff import ChunkDiff, StoredChunk, diff_chunks
from vectorizer.errors import ConfigurationError, EmbedderRefused, EmbedderUnavailable
from vectorizer.events import stage
from vectorizer.identifiers import MAX_TIME, MIN_TIME
from vectorizer.packing import pack_halfvecs, pack_vectors
from vectorizer.types import Embedder
from vectorizer.vectors import as_matrix

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

__all__ = ["AsyncPipeline"]


class AsyncPipeline:
    """Turns loaded rows into outcomes. Nothing here touches the database."""

    def __init__(self, definition: Definition, embedder: Embedder) -> None:
        self._template = definition.parsed_template
        self._chunker = definition.chunker
        self._embedder = embedder
        self._pack = pack_halfvecs if definition.vectors == "halfvec" else pack_vectors

    async def outcomes(
        self, rows: Sequence[LoadedRow], stored: Mapping[int, Sequence[StoredChunk]]
    ) -> list[Outcome]:
        """Return what becomes of each row, new chunks embedded.

        Raises EmbedderUnavailable or EmbedderRefused; what lies in a row's data fails that
        row alone.
        """
        with stage("prepare"):
            prepared = [self._prepare(row, stored.get(row.number, ())) for row in rows]
        settled = [outcome for outcome in prepared if not _needs_model(outcome)]
        waiting = [
            outcome for outcome in prepared if isinstance(outcome, Done) and outcome.diff.new
        ]
        # A row that failed before travels alone, so that it cannot fail others again.
        together = [outcome for outcome in waiting if outcome.row.attempts == 0]
        groups = [together, *([outcome] for outcome in waiting if outcome.row.attempts)]
        with stage("embed"):
            for group in groups:
                settled += await self._embed(group)
        return settled

    def _prepare(self, row: LoadedRow, stored: Sequence[StoredChunk]) -> Outcome:
        if not row.present:
            return Gone(row, ChunkDiff(stale=list(stored)))
        if row.unchanged:
            return Unchanged(row)
        texts = self._texts(row)
        if row.time is None or not texts:
            return Done(row, None, ChunkDiff(stale=list(stored)))
        if not MIN_TIME <= row.time <= MAX_TIME:
            return Failed(
                row, "the row's time lies outside the years 1582 to 5236 that an id can hold"
            )
        return Done(row, row.time, diff_chunks(row.key_bytes, row.time, texts, stored))

    def _texts(self, row: LoadedRow) -> list[str]:
        content, *others = row.texts
        if content is None:
            return []
        values = dict(zip(self._template.columns, others, strict=True))
        return [self._template.render(values, chunk) for chunk in self._chunker.split(content)]

    async def _embed(self, group: Sequence[Done]) -> list[Outcome]:
        if not group:
            return []
        # Equal texts are sent once, whichever rows they belong to.
        texts = list(
            {chunk.content_hash: chunk.text for done in group for chunk in done.diff.new}.values()
        )
        try:
            packed = self._pack(await self._vectors(texts))
        except (EmbedderUnavailable, EmbedderRefused, ConfigurationError, ImportError):
            raise  # none of them is the fault of a row
        except OSError as error:  # includes timeouts and lost connections
            raise EmbedderUnavailable(f"{type(error).__name__}: {error}") from error
        except Exception as error:  # noqa: BLE001 - any error of a user's embedder may lie in the data
            return await self._halve(group, error)
        by_text = dict(zip(texts, packed, strict=True))
        return [
            Done(done.row, done.time, done.diff, [by_text[chunk.text] for chunk in done.diff.new])
            for done in group
        ]

    async def _halve(self, group: Sequence[Done], error: Exception) -> list[Outcome]:
        if len(group) == 1:
            return [Failed(group[0].row, f"{type(error).__name__}: {error}")]
        middle = len(group) // 2
        return [*await self._embed(group[:middle]), *await self._embed(group[middle:])]

    async def _vectors(self, texts: list[str]) -> FloatMatrix:

        return as_matrix(
            await call_async(self._embedder.embed, texts), len(texts), self._embedder.dimensions
        )


def _needs_model(outcome: Outcome) -> bool:
    return isinstance(outcome, Done) and bool(outcome.diff.new)
