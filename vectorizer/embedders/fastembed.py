"""The ONNX models of fastembed on the CPU, without torch: the extra `fastembed`."""

from __future__ import annotations

from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any

from vectorizer.errors import ConfigurationError, InputRejected
from vectorizer.tokens import tokenizer_cutter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vectorizer.types import JSON, FloatMatrix

__all__ = ["FastEmbedEmbedder"]

_MODEL = "BAAI/bge-small-en-v1.5"
_BATCH_SIZE = 64


class FastEmbedEmbedder:
    """Embeds with fastembed.

    `model` is one of `fastembed.TextEmbedding.list_supported_models()`. Its files come from the
    folder `path` if given, else from fastembed's cache (`cache_dir`, FASTEMBED_CACHE_PATH), else
    from the network; `offline` forbids the last. It is loaded by the first use. `threads` are
    those of one call; calls go one at a time.

    Raises ConfigurationError, at first use, if the package or the model is missing.
    """

    concurrency = 1
    max_texts = 512

    def __init__(
        self,
        model: str = _MODEL,
        *,
        path: str | None = None,
        cache_dir: str | None = None,
        offline: bool = False,
        threads: int | None = None,
        batch_size: int = _BATCH_SIZE,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be 1 or more, not {batch_size}")
        self.model = model
        self._batch_size = batch_size
        self._lock = Lock()
        self._loaded: Any = None
        self._dimensions: int | None = None
        self._options: dict[str, JSON] = {
            option: value
            for option, value in {
                "path": path,
                "cache_dir": cache_dir,
                "offline": offline or None,
                "threads": threads,
            }.items()
            if value is not None
        }

    @property
    def dimensions(self) -> int:
        """Number of components of each vector; loads the model at first."""
        if self._dimensions is None:
            self._dimensions = int(self._model().embedding_size)
        return self._dimensions

    @property
    def max_text_tokens(self) -> int | None:
        """The most tokens of a text that the model reads; loads it."""
        truncation = self._tokenizer().truncation
        return None if truncation is None else int(truncation["max_length"])

    @property
    def config(self) -> dict[str, JSON]:
        """Provider, model and options."""
        return {"provider": "fastembed", "model": self.model, **self._options}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    def cut(self, text: str, most: int) -> list[str]:
        """Return the pieces of a text of at most `most` tokens each."""
        return tokenizer_cutter(self._tokenizer())(text, most)

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
                vectors = list(model.embed(list(texts), batch_size=self._batch_size))
            except TypeError as error:  # also for lone surrogates
                raise InputRejected("a text is not a string of valid Unicode") from error
        return np.asarray(vectors, np.float32)

    def _tokenizer(self) -> Any:
        return self._model().model.tokenizer

    def _model(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self.model, self._options)
            return self._loaded


def _load(model: str, options: dict[str, JSON]) -> Any:
    if find_spec("fastembed") is None:
        raise ConfigurationError(
            "this embedder needs fastembed: run `pip install 'pg-vectorizer[fastembed]'`"
        )
    from fastembed import TextEmbedding  # noqa: PLC0415 - seconds

    try:
        return TextEmbedding(
            model,
            cache_dir=options.get("cache_dir"),
            threads=options.get("threads"),
            local_files_only=bool(options.get("offline")),
            specific_model_path=options.get("path"),
        )
    except Exception as error:  # hub and onnxruntime raise many kinds
        raise ConfigurationError(
            f"cannot load the model {model}: {type(error).__name__}: {str(error)[:200]}"
        ) from error
