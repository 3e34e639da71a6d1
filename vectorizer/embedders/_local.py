"""What embedders share whose model is an object of another package in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any

from vectorizer.errors import ConfigurationError, InputRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vectorizer.types import FloatMatrix

__all__ = ["LocalEmbedder", "loaded"]


class LocalEmbedder(ABC):
    """Loads its model at first use and only once, and asks it one call at a time.

    source: what the model is loaded by; batch_size: texts computed at once.
    """

    concurrency = 1
    max_texts = 512

    def __init__(self, source: str, batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be 1 or more, not {batch_size}")
        self._source = source
        self._batch_size = batch_size
        self._lock = Lock()
        self._loaded: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source!r})"

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Number of components of each vector."""

    @abstractmethod
    def _load(self) -> Any:
        """Return the model; raise ConfigurationError if it or its package is missing."""

    @abstractmethod
    def _encode(self, model: Any, texts: list[str]) -> Any:
        """Return the vectors of texts, in order."""

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Return the vectors of `texts`, in order: float32 of shape (len(texts), dimensions).

        Raises ConfigurationError if the package or the model is missing, InputRejected if
        something in `texts` is not a string of valid Unicode.
        """
        import numpy as np  # noqa: PLC0415 - heavy

        if isinstance(texts, str):
            raise TypeError("embed takes a sequence of texts, not a single text")
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        model = self._model()
        with self._lock:
            try:
                vectors = self._encode(model, list(texts))
            except (TypeError, UnicodeEncodeError) as error:  # also for lone surrogates
                raise InputRejected("a text is not a string of valid Unicode") from error
        return np.asarray(vectors, np.float32)

    def _model(self) -> Any:
        # Threads that come while one loads wait for it instead of loading as well.
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded


def loaded(module: str, extra: str, model: str, load: Callable[[], Any]) -> Any:
    """Return what `load` loads, which needs a module; raise ConfigurationError if it cannot."""
    if find_spec(module) is None:
        raise ConfigurationError(
            f"this embedder needs {extra}: run `pip install 'pg-vectorizer[{extra}]'`"
        )
    try:
        return load()
    except Exception as error:  # hub, torch, transformers and onnxruntime raise many kinds
        raise ConfigurationError(
            f"cannot load the model {model}: {type(error).__name__}: {str(error)[:200]}"
        ) from error
