"""Counts what a vectorizer would send to its model, without sending anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from vectorizer._async.database import AsyncDatabase
from vectorizer.definition import Installation, Relation
from vectorizer.errors import InputTooLong
from vectorizer.identifiers import content_hash
from vectorizer.limits import limits_of, pack
from vectorizer.plan import Tally
from vectorizer.row_texts import TextMaker
from vectorizer.statements import Statements
from vectorizer.types import Embedder

__all__ = ["AsyncPlanner"]

# Rows read at once; a batch, for texts are sent once only within one.
_PAGE = 200


class AsyncPlanner:
    """Counts rows, texts and tokens of one vectorizer, installed or not.

    stored: where texts of its model are stored already, if anywhere.
    """

    def __init__(
        self,
        database: AsyncDatabase,
        installation: Installation,
        embedder: Embedder,
        stored: Relation | None,
    ) -> None:
        self._database = database
        self._statements = Statements(database.schema, installation, stored)
        self._limits = limits_of(embedder)
        definition = installation.definition
        self._maker = TextMaker(
            definition.parsed_template, definition.chunker, self._limits, definition.on_long_text
        )

    async def count(self, sample: int) -> tuple[Tally, int, int]:
        """Return what was counted, in how many rows, and of how many.

        A source of more than `sample` rows is not read in full but sampled by its pages.
        """
        total = await self._total(sample)
        tally, read = Tally(), 0
        pages = self._all() if total <= sample else self._sampled(sample / total, sample)
        async for page in pages:
            self._add(tally, page)
            read += len(page)
        return tally, read, max(total, read)

    async def _total(self, sample: int) -> int:
        async with self._database.transaction() as connection:
            found = await connection.execute(self._statements["count_rows"], {"rows": sample + 1})
            (count,) = await found.fetchone() or (0,)
        return int(count)

    async def _all(self) -> AsyncIterator[list[Any]]:
        cursor = None
        while True:
            page = await self._read(
                self._statements.plan_rows(started=cursor is not None),
                {"cursor": cursor or "{}", "rows": _PAGE},
            )
            yield page
            if len(page) < _PAGE:
                return
            cursor = page[-1][0]

    async def _sampled(self, share: float, most: int) -> AsyncIterator[list[Any]]:
        rows = await self._read(
            self._statements.plan_sample(),
            {"cursor": "{}", "rows": most, "percent": min(100.0, 100 * share)},
        )
        for start in range(0, len(rows), _PAGE):
            yield rows[start : start + _PAGE]

    async def _read(self, statement: Any, parameters: dict[str, Any]) -> list[Any]:
        async with self._database.transaction() as connection:
            found = await connection.execute(statement, parameters, binary=True)
            return await found.fetchall()

    def _add(self, tally: Tally, page: Sequence[Any]) -> None:
        new: dict[bytes, str] = {}
        for _, visible, columns, stored in page:
            if visible:
                self._add_row(tally, columns, Counter(stored), new)
        texts = list(new.values())
        tally.texts_to_send += len(texts)
        tally.tokens_to_send += sum(map(self._limits.count, texts))
        tally.requests += sum(1 for _ in pack(texts, self._limits))

    def _add_row(
        self,
        tally: Tally,
        columns: Sequence[str | None],
        stored: Counter[bytes],
        new: dict[bytes, str],
    ) -> None:
        try:
            texts = self._maker.texts(columns)
        except InputTooLong:
            tally.too_long += 1
            return
        tally.rows += bool(texts)
        tally.chunks += len(texts)
        tally.tokens += sum(map(self._limits.count, texts))
        for text in texts:
            content = content_hash(text)
            if stored[content] > 0:
                stored[content] -= 1
            else:
                new[content] = text
