"""Text in, text out: a collection that carries an embedder and cuts texts into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vectorizer._async.collection_search import AsyncCollectionSearch
from vectorizer._async.collection_writer import AsyncCollectionWriter
from vectorizer.chunking import Chunker
from vectorizer.concurrency import call_async
from vectorizer.errors import DimensionMismatch, InvalidArgument
from vectorizer.records import Record
from vectorizer.texts import DOCUMENT, Splitter, checked_texts, chunk_records
from vectorizer.types import Embedder
from vectorizer.vectors import as_matrix

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

__all__ = ["AsyncCollectionTexts"]

_TEXTS_AT_ONCE = 1000


class AsyncCollectionTexts:
    """Embeds texts on their way in, and queries on their way out."""

    def __init__(
        self,
        writer: AsyncCollectionWriter,
        search: AsyncCollectionSearch,
        embedder: Embedder | None,
        chunker: Splitter | None,
        dimensions: int,
        *,
        uuids: bool,
    ) -> None:
        if embedder is not None and embedder.dimensions != dimensions:
            raise DimensionMismatch(
                f"the embedder makes vectors of {embedder.dimensions} dimensions, and "
                f"num_dimensions is {dimensions}; give {embedder.dimensions}"
            )
        self._writer = writer
        self._search = search
        self._embedder = embedder
        self._chunker = chunker or Chunker()
        self._uuids = uuids

    async def embedded(self, text: str) -> Any:
        """Return the vector of a query."""
        return (await self._vectors([text]))[0]

    async def upsert(self, records: Iterable[Record]) -> None:
        """Store texts in place of what was stored under their ids."""
        texts = checked_texts(records, uuids=self._uuids)
        self._required()
        chunks = [
            chunk
            for text in texts
            for chunk in chunk_records(text, self._chunker.split(text.contents))
        ]
        documents = [str(text.id) for text in texts]
        # No transaction is open while the model is asked.
        vectors = await self._known(documents)
        new = list(dict.fromkeys(chunk[2] for chunk in chunks if chunk[2] not in vectors))
        if new:
            vectors |= dict(zip(new, await self._vectors(new), strict=True))
        await self._writer.replace_texts(
            [text.id for text in texts],
            [(*chunk, vectors[chunk[2]]) for chunk in chunks],
        )

    async def _known(self, documents: Sequence[str]) -> dict[str, Any]:
        """Return the vectors of the chunks that are stored of these texts: never embedded again."""
        return await self._search.vectors_of([{DOCUMENT: document} for document in documents])

    async def _vectors(self, texts: list[str]) -> FloatMatrix:
        embedder = self._required()
        matrices = []
        size = min(getattr(embedder, "max_texts", None) or _TEXTS_AT_ONCE, _TEXTS_AT_ONCE)
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            answer = await call_async(embedder.embed, part)
            matrices.append(as_matrix(answer, len(part), embedder.dimensions))
        import numpy as np  # noqa: PLC0415 - heavy

        return np.concatenate(matrices)

    def _required(self) -> Embedder:
        if self._embedder is None:
            raise InvalidArgument(
                "a text needs an embedder: make the client with embedder=..., or give vectors"
            )
        return self._embedder
