"""Texts to the model and vectors back: packed, several calls at once, one bad text apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from vectorizer.concurrency import AsyncSemaphore, call_async, each_async
from vectorizer.errors import (
    ConfigurationError,
    EmbedderRefused,
    EmbedderUnavailable,
    InputTooLong,
    InvalidEmbeddings,
)
from vectorizer.events import emit
from vectorizer.limits import limits_of, pack
from vectorizer.types import Embedder
from vectorizer.vectors import as_matrix

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

__all__ = ["AsyncSender", "Sent"]

# Where so many texts were refused one by one and none was embedded, the fault is not theirs: the
# others are not sent one by one, too.
_HOPELESS = 8

# These may come from the number of texts, or from the provider having a bad moment.
_NOT_ONE_TEXT = (InputTooLong, InvalidEmbeddings)


@dataclass(slots=True)
class Sent:
    """What came of some texts; one that is in neither mapping was not answered.

    vectors: by text, each packed as a field of COPY. rejected: why the model did not take a text.
    made: of the vectors those that were sent for, by the hash of the text.
    interruption: what ended it early and lies in no text: an outage, a refusal of the provider.
    requests, texts, tokens: what was sent, and answered or not; tokens as the embedder counts.
    """

    vectors: dict[str, bytes] = field(default_factory=dict)
    rejected: dict[str, Exception] = field(default_factory=dict)
    made: dict[bytes, bytes] = field(default_factory=dict)
    interruption: Exception | None = None
    requests: int = 0
    texts: int = 0
    tokens: int = 0

    def add(self, other: Sent) -> None:
        """Add what became of other texts."""
        self.vectors.update(other.vectors)
        self.rejected.update(other.rejected)
        self.made.update(other.made)
        self.interruption = self.interruption or other.interruption
        self.requests += other.requests
        self.texts += other.texts
        self.tokens += other.tokens

    @property
    def hopeless(self) -> bool:
        """Whether so much was refused, and nothing embedded, that the texts are not at fault."""
        return not self.vectors and len(self.rejected) >= _HOPELESS


class AsyncSender:
    """Sends texts to one embedder within its limits.

    packer: turns a matrix of vectors into one field of COPY a row.
    """

    def __init__(
        self,
        embedder: Embedder,
        packer: Callable[[FloatMatrix], list[bytes]],
    ) -> None:
        self._pack = packer
        self.limits = limits_of(embedder)
        self._dimensions = embedder.dimensions
        # Of all batches in flight together.
        self._slots = AsyncSemaphore(self.limits.concurrency)
        # Where `embed` makes several requests of one call, only this keeps apart what became
        # of each.
        self._embed = getattr(embedder, "embed_request", embedder.embed)

    async def send(self, groups: Sequence[Sequence[str]]) -> Sent:
        """Embed texts, none of them twice; texts of two groups never share a call.

        A call that is refused is halved until those refused are alone: n texts with a bad one
        cost at most 2 log2(n) calls more. After an interruption nothing more is sent, and what
        is there is returned with it.
        """
        sent = Sent()
        calls = [group[cut] for group in groups for cut in pack(group, self.limits)]
        if calls:
            await each_async(
                self.limits.concurrency, lambda texts: self._embed_all(texts, sent), calls
            )
        return sent

    async def _embed_all(
        self, texts: Sequence[str], sent: Sent, refused: Exception | None = None
    ) -> bool:
        """Embed texts; return whether all were. refused: why these are known to hold a bad one."""
        if refused is None or len(texts) == 1:
            refused = await self._call(texts, sent)
        if refused is None or sent.interruption is not None:
            return refused is None
        if len(texts) == 1 or sent.hopeless:
            sent.rejected.update(dict.fromkeys(texts, refused))
            return False
        middle = len(texts) // 2
        good = await self._embed_all(texts[:middle], sent)
        # If the first half is good, a bad text is in the second, unless that was not the matter.
        known = refused if good and not isinstance(refused, _NOT_ONE_TEXT) else None
        await self._embed_all(texts[middle:], sent, known)
        return False

    async def _call(self, texts: Sequence[str], sent: Sent) -> Exception | None:
        """Call the embedder once; return why it did not take these texts, None if it did."""
        tokens = sum(map(self.limits.count, texts))
        async with self._slots:
            if sent.interruption is not None:
                return sent.interruption
            sent.requests += 1
            sent.texts += len(texts)
            sent.tokens += tokens
            started = perf_counter()
            failure = await self._answer(texts, sent)
        outcome = "ok" if failure is None else type(failure).__name__
        emit(outcome, texts=len(texts), tokens=tokens, seconds=perf_counter() - started)
        return failure

    async def _answer(self, texts: Sequence[str], sent: Sent) -> Exception | None:
        try:
            answer = await call_async(self._embed, texts)
            packed = self._pack(as_matrix(answer, len(texts), self._dimensions))
        except (EmbedderUnavailable, EmbedderRefused, ConfigurationError, ImportError) as error:
            sent.interruption = error  # none of them is the fault of a text
        except OSError as error:  # includes timeouts and lost connections
            sent.interruption = EmbedderUnavailable(f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - any error of a user's embedder may lie in the data
            return error
        else:
            sent.vectors.update(zip(texts, packed, strict=True))
        return sent.interruption
