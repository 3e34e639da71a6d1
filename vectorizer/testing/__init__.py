"""An embedder for tests; the fixtures stand in `vectorizer.testing.pytest_plugin`."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from vectorizer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vectorizer.types import JSON, FloatMatrix

__all__ = ["FakeEmbedder"]

_WORD = re.compile(r"\w+")


class FakeEmbedder:
    """Makes vectors from the words of a text: no model, no network, the same everywhere.

    A vector is the normalized sum of one random direction a word, so texts that share words
    are near each other; case and order do not matter. Each `model` has directions of its own.

    >>> embedder = FakeEmbedder()
    >>> _ = embedder.embed(["a cat", "a dog"])
    >>> embedder.calls, embedder.texts
    (1, 2)
    """

    def __init__(self, dimensions: int = 16, model: str = "fake") -> None:
        if dimensions < 1:
            raise ConfigurationError(f"an embedding has at least 1 dimension, not {dimensions}")
        self.dimensions = dimensions
        self.model = model
        self.calls = 0
        """How often `embed` was called."""
        self.texts = 0
        """How many texts it was given."""
        self._lock = Lock()

    @property
    def config(self) -> dict[str, JSON]:
        """What `embedders.create` makes the same embedder from."""
        return {"provider": "fake", "dimensions": self.dimensions, "model": self.model}

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Return one unit vector a text."""
        import numpy as np  # noqa: PLC0415 - heavy, and not needed to make an embedder

        with self._lock:
            self.calls += 1
            self.texts += len(texts)
        vectors = np.zeros((len(texts), self.dimensions))
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            for word in words:
                vectors[row] += _direction(self.model, word, self.dimensions)
            if not words:
                vectors[row, 0] = 1
        unit: FloatMatrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("f4")
        return unit


@lru_cache(maxsize=10_000)
def _direction(model: str, word: str, dimensions: int) -> NDArray[np.float64]:
    """Return a random unit vector; hashed, for numpy's generators may change with its version."""
    import numpy as np  # noqa: PLC0415

    noise = hashlib.shake_256(f"{model}\0{word}".encode()).digest(4 * dimensions)
    vector = np.frombuffer(noise, "<u4") - (2**31 - 0.5)  # uniform around 0, never 0
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
