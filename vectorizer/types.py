"""Types that several modules share; nothing here does I/O or imports a heavy package."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatMatrix: TypeAlias = NDArray[np.float32]

__all__ = ["JSON", "ConfiguredEmbedder", "Embedder"]

JSON: TypeAlias = Any
"""A value as `json.loads` returns it."""


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns texts into vectors of one dimension.

    An object of your own needs just these three; it may also offer

    - `config`: a JSON-able mapping without secrets from which `embedders.create` makes
      the same embedder again, so that a worker started from the shell can serve it;
    - `max_texts` and `max_tokens`: the most texts and tokens one call of `embed` takes;
    - `max_text_tokens`: the most tokens of one text, with `cut(text, most)`, which returns the
      pieces of a text of at most so many tokens each, and `count_tokens(text)`;
    - `concurrency`: how many calls may be under way at once, 1 if it is not there;
    - `embed_request(texts)`: makes one request of its texts and no more, where `embed` may make
      several: so one that is refused takes no others with it.

    Raise EmbedderUnavailable where the provider cannot answer now (OSError counts as that),
    EmbedderRefused where somebody has to act, InputRejected for texts it does not take and
    InputTooLong where they are too long: see `vectorizer.errors`.
    """

    @property
    def model(self) -> str:
        """Name of the model; vectors of two models are never mixed."""
        ...

    @property
    def dimensions(self) -> int:
        """Number of components of each vector."""
        ...

    def embed(self, texts: Sequence[str]) -> ArrayLike | Awaitable[ArrayLike]:
        """Return one vector a text, in order: shape (len(texts), dimensions), finite."""
        ...


class ConfiguredEmbedder(Embedder, Protocol):
    """An embedder that `embedders.create(embedder.config)` can make again."""

    @property
    def config(self) -> Mapping[str, JSON]:
        """Provider name and options, JSON-able and without secrets."""
        ...
