"""The built-in pipeline: template, chunks, what is stored already, and only then the model."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from vectorizer._async.sender import AsyncSender, Sent
from vectorizer.batch import Done, Failed, Gone, LoadedRow, Outcome, Released, Unchanged
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
    """

    outcomes: list[Outcome]
    interruption: Exception | None = None
    requests: int = 0
    texts: int = 0
    tokens: int = 0


class AsyncPipeline:
    """Turns loaded rows into outcomes. Nothing here touches the database.

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
        self, rows: Sequence[LoadedRow], stored: Mapping[int, Sequence[StoredChunk]]
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
                sent = await self._send(list(prepared.values()), total)
            too_long = self._too_long(sent)
            if not too_long:
                break
            # Only the model knew: what it refused is shortened, and sent again.
            refused |= too_long
            for row in rows:
                if _holds(prepared[row.number], too_long):
                    chunks = stored.get(row.number, ())
                    prepared[row.number] = self._prepare(row, chunks, refused)
        return Processed(
            [self._settled(outcome, total) for outcome in prepared.values()],
            total.interruption,
            total.requests,
            total.texts,
            total.tokens,
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
            texts = self._maker.texts(row.texts, refused)
        except InputTooLong as error:
            return Failed(row, _said(error))
        if row.time is None or not texts:
            return Done(row, None, ChunkDiff(stale=list(stored)))
        if not MIN_TIME <= row.time <= MAX_TIME:
            return Failed(
                row, "the row's time lies outside the years 1582 to 5236 that an id can hold"
            )
        return Done(row, row.time, diff_chunks(row.key_bytes, row.time, texts, stored))

    async def _send(self, outcomes: Sequence[Outcome], total: Sent) -> Sent:
        """Embed what is not yet, and add it to `total`; return what was sent now."""
        waiting = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        self._recall(waiting, total)
        # A row that failed before travels alone, so that it cannot fail others again.
        together = [done for done in waiting if done.row.attempts == 0]
        groups = [together, *([done] for done in waiting if done.row.attempts)]
        seen = total.vectors.keys() | total.rejected.keys()
        # Equal texts are sent once, whichever rows they belong to.
        texts = [_unseen(group, seen) for group in groups]
        sent = await self._sender.send([group for group in texts if group])
        self._remember(waiting, sent)
        total.add(sent)
        return sent

    def _recall(self, waiting: Sequence[Done], total: Sent) -> None:
        for chunk in _new(waiting):
            if vector := self._unwritten.get(chunk.content_hash):
                total.vectors[chunk.text] = vector

    def _remember(self, waiting: Sequence[Done], sent: Sent) -> None:
        self._unwritten.add(
            {
                chunk.content_hash: sent.vectors[chunk.text]
                for chunk in _new(waiting)
                if chunk.text in sent.vectors
            }
        )

    def _too_long(self, sent: Sent) -> set[str]:
        """Return the texts that were refused for their length and may be shortened."""
        if self._maker.on_long_text == "dead-letter" or sent.interruption is not None:
            return set()
        return {text for text, why in sent.rejected.items() if isinstance(why, InputTooLong)}

    def _settled(self, outcome: Outcome, sent: Sent) -> Outcome:
        if not isinstance(outcome, Done) or not outcome.diff.new:
            return outcome
        texts = [chunk.text for chunk in outcome.diff.new]
        for text in texts:
            if text in sent.rejected:
                return Failed(outcome.row, _said(sent.rejected[text]))
        if not all(text in sent.vectors for text in texts):
            return Released(outcome.row)
        return replace(outcome, vectors=[sent.vectors[text] for text in texts])


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
