"""The built-in pipeline: template, chunks, what is stored already, and only then the model."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from vectorizer._async.sender import AsyncSender, Sent
from vectorizer._async.spending import AsyncPurse
from vectorizer.batch import Done, Failed, Gone, LoadedRow, Outcome, Released, Spent, Unchanged
from vectorizer.definition import Definition
from vectorizer.diff import ChunkDiff, NewChunk, StoredChunk, diff_chunks
from vectorizer.errors import InputTooLong
from vectorizer.events import stage
from vectorizer.identifiers import MAX_TIME, MIN_TIME
from vectorizer.packing import pack_halfvecs, pack_vectors
from vectorizer.row_texts import TextMaker
from vectorizer.types import Embedder
from vectorizer.unwritten import UnwrittenVectors

__all__ = ["AsyncPipeline", "Processed"]


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of each row of a batch, and what it cost.

    interruption: why some rows are Released, to be raised when the others are written: None,
    EmbedderUnavailable, EmbedderRefused, or what the embedder's configuration or import raised.
    release_seconds: how long Released rows are to wait.
    """

    outcomes: list[Outcome]
    spent: Spent
    interruption: Exception | None = None
    release_seconds: float = 0.0


class AsyncPipeline:
    """Turns loaded rows into outcomes. Only the purse touches the database.

    unwritten: what this embedder has made and nobody has written; it may outlive the pipeline.
    """

    def __init__(
        self, definition: Definition, embedder: Embedder, unwritten: UnwrittenVectors | None = None
    ) -> None:
        packer = pack_halfvecs if definition.vectors == "halfvec" else pack_vectors
        self._sender = AsyncSender(embedder, packer)
        self._unwritten = UnwrittenVectors() if unwritten is None else unwritten
        self._maker = TextMaker(
            definition.parsed_template,
            definition.chunker,
            self._sender.limits,
            definition.on_long_text,
        )

    async def process(
        self,
        rows: Sequence[LoadedRow],
        stored: Mapping[int, Sequence[StoredChunk]],
        purse: AsyncPurse,
    ) -> Processed:
        """Return what becomes of each row, new chunks embedded.

        What lies in a row's data fails that row alone. Where the provider cannot go on, rows
        whose texts are all embedded are Done all the same, and the others Released; what was
        embedded of those is remembered for their next turn.
        """
        with stage("prepare"):
            prepared = {row.number: self._prepare(row, stored.get(row.number, ())) for row in rows}
        total = Sent()
        refused: set[str] = set()
        while True:
            with stage("embed"):
                sent = await self._send(list(prepared.values()), total, purse)
            too_long = self._too_long(sent)
            if not too_long:
                break
            # Only the model knew: what it refused is shortened, and sent again.
            refused |= too_long
            for row in rows:
                if _holds(prepared[row.number], too_long):
                    chunks = stored.get(row.number, ())
                    prepared[row.number] = self._prepare(row, chunks, refused)
        interruption = total.interruption
        return Processed(
            [self._settled(outcome, total) for outcome in prepared.values()],
            self._spent(list(prepared.values()), total),
            interruption,
            max(getattr(interruption, "retry_after", None) or 0.0, purse.release_seconds),
        )

    def written(self, outcomes: Sequence[Outcome]) -> None:
        """Drop what was remembered for these outcomes, now that they are in the database."""
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        self._unwritten.forget(chunk.content_hash for chunk in _new(done))

    def _prepare(
        self, row: LoadedRow, stored: Sequence[StoredChunk], refused: Container[str] = ()
    ) -> Outcome:
        if not row.present:
            return Gone(row, ChunkDiff(stale=list(stored)))
        if row.unchanged:
            return Unchanged(row)
        try:
            # What a verification found wrong is cut afresh. A text of one chunk was not cut.
            was_cut = len(stored) > 1 and not row.under_repair
            before = [chunk.text for chunk in stored if chunk.text] if was_cut else []
            texts = self._maker.texts(row.texts, before, refused)
        except InputTooLong as error:
            return Failed(row, _said(error))
        if row.time is None or not texts:
            return Done(row, None, ChunkDiff(stale=list(stored)))
        if not MIN_TIME <= row.time <= MAX_TIME:
            return Failed(
                row, "the row's time lies outside the years 1582 to 5236 that an id can hold"
            )
        diff = diff_chunks(row.key_bytes, row.time, texts, stored)
        return Done(row, row.time, diff, tokens=sum(map(self._sender.limits.count, texts)))

    async def _send(self, outcomes: Sequence[Outcome], total: Sent, purse: AsyncPurse) -> Sent:
        """Embed what is not yet, and add it to `total`; return what was sent now."""
        waiting = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        await self._recall(waiting, total, purse)
        # A row that failed before travels alone, so that it cannot fail others again.
        together = [done for done in waiting if done.row.attempts == 0]
        groups = [together, *([done] for done in waiting if done.row.attempts)]
        seen = total.vectors.keys() | total.rejected.keys()
        texts = await self._affordable(groups, seen, purse)
        sent = await self._sender.send([group for group in texts if group])
        self._remember(waiting, sent)
        total.add(sent)
        return sent

    async def _recall(self, waiting: Sequence[Done], total: Sent, purse: AsyncPurse) -> None:
        """Add the vectors of texts that were embedded before."""
        texts = {
            chunk.content_hash: chunk.text
            for chunk in _new(waiting)
            if chunk.text not in total.vectors
        }
        found = {content: vector for content in texts if (vector := self._unwritten.get(content))}
        found |= await purse.known([content for content in texts if content not in found])
        total.vectors |= {texts[content]: vector for content, vector in found.items()}

    def _remember(self, waiting: Sequence[Done], sent: Sent) -> None:
        made = {
            chunk.content_hash: sent.vectors[chunk.text]
            for chunk in _new(waiting)
            if chunk.text in sent.vectors
        }
        self._unwritten.add(made)
        sent.made.update(made)

    async def _affordable(
        self, groups: Sequence[Sequence[Done]], seen: set[str], purse: AsyncPurse
    ) -> list[list[str]]:
        """Return the texts to send, each once: of as many rows as the budget allows."""
        # Equal texts are sent once, whichever rows they belong to.
        if not purse.limited:
            return [_unseen(group, seen) for group in groups]
        texts = [[_unseen([done], seen) for done in group] for group in groups]
        await self._cut_to_budget(texts, purse)
        return [[text for row in group for text in row] for group in texts]

    async def _cut_to_budget(self, texts: list[list[list[str]]], purse: AsyncPurse) -> None:
        costs = [[sum(map(self._sender.limits.count, row)) for row in group] for group in texts]
        wanted = sum(map(sum, costs))
        left = await purse.take(wanted) if wanted else 0
        if left == wanted:
            return
        for group, prices in zip(texts, costs, strict=True):
            for position, price in enumerate(prices):
                if price <= left:
                    left -= price
                else:
                    group[position] = []
        await purse.give_back(left)

    def _spent(self, outcomes: Sequence[Outcome], sent: Sent) -> Spent:
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        return Spent(
            requests=sent.requests,
            texts_asked=sum(outcome.chunks for outcome in done),
            texts_sent=sent.texts,
            tokens_asked=sum(outcome.tokens for outcome in done),
            tokens_sent=sent.tokens,
            vectors=sent.made,
        )

    def _too_long(self, sent: Sent) -> set[str]:
        """Return the texts that were refused for their length and may be shortened."""
        if self._maker.on_long_text == "dead-letter" or sent.interruption is not None:
            return set()
        return {text for text, why in sent.rejected.items() if isinstance(why, InputTooLong)}

    def _settled(self, outcome: Outcome, sent: Sent) -> Outcome:
        if not isinstance(outcome, Done) or not outcome.diff.new:
            return outcome
        vectors: list[bytes] = []
        released = False
        for chunk in outcome.diff.new:
            vector = sent.vectors.get(chunk.text)
            if vector is not None:
                vectors.append(vector)
            elif chunk.text in sent.rejected:
                return Failed(outcome.row, _said(sent.rejected[chunk.text]))
            else:
                released = True
        if released:
            return Released(outcome.row)
        return Done(outcome.row, outcome.time, outcome.diff, vectors, outcome.tokens)


def _new(waiting: Sequence[Done]) -> list[NewChunk]:
    return [chunk for done in waiting for chunk in done.diff.new]


def _unseen(group: Sequence[Done], seen: set[str]) -> list[str]:
    """Return the texts of a group that are not in `seen`, each once, and add them to it."""
    texts = list(dict.fromkeys(chunk.text for chunk in _new(group) if chunk.text not in seen))
    seen.update(texts)
    return texts


def _holds(outcome: Outcome, texts: set[str]) -> bool:
    return isinstance(outcome, Done) and any(chunk.text in texts for chunk in outcome.diff.new)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
