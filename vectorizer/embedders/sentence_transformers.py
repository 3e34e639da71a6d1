"""Any model that sentence-transformers can load; the extra is `sentence-transformers`."""

from __future__ import annotations

from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any

from vectorizer.errors import ConfigurationError, InputRejected
from vectorizer.tokens import tokenizer_cutter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vectorizer.types import JSON, FloatMatrix

__all__ = ["SentenceTransformersEmbedder"]

_BATCH_SIZE = 32


class SentenceTransformersEmbedder:
    """Embeds with sentence-transformers.

    `model` is the name of a model on the Hugging Face hub or a folder; it is loaded by the first
    use, from the hub's cache on disk if it is there. `device` is as torch names it ("cuda",
    "mps", "cpu"); None takes the best there is. `prompt` comes before each text. `dimensions`
    shortens the vectors of models that allow it. `name` is what the vectors are said to be by,
    where `model` is a folder.

    Calls go one at a time: torch uses all cores by itself.

    Raises ConfigurationError, at first use, if the package or the model is missing.
    """

    concurrency = 1
    max_texts = 512

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        device: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        batch_size: int = _BATCH_SIZE,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be 1 or more, not {batch_size}")
        self._source = model
        self.model = name or model
        self._device = device
        self._prompt = prompt
        self._dimensions = dimensions
        self._batch_size = batch_size
        self._lock = Lock()
        self._loaded: Any = None
        given: dict[str, JSON] = {
            "name": name,
            "device": device,
            "prompt": prompt,
            "dimensions": dimensions,
        }
        self._options = {option: value for option, value in given.items() if value is not None}

    @property
    def dimensions(self) -> int:
        """Number of components of each vector; loads the model if nobody said."""
        if self._dimensions is None:
            self._dimensions = int(self._model().get_sentence_embedding_dimension())
        return self._dimensions

    @property
    def max_text_tokens(self) -> int | None:
        """The most tokens of a text that the model reads; loads it."""
        most = self._model().max_seq_length
        return None if most is None else int(most)

    @property
    def config(self) -> dict[str, JSON]:
        """Provider, model and the options that change the vectors or where they are made."""
        return {"provider": "sentence-transformers", "model": self._source, **self._options}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source!r})"

    def cut(self, text: str, most: int) -> list[str]:
        """Return the pieces of a text of at most `most` tokens each."""
        tokenizer = getattr(self._model().tokenizer, "backend_tokenizer", None)
        return [text] if tokenizer is None else tokenizer_cutter(tokenizer)(text, most)

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
                vectors = model.encode(
                    list(texts),
                    batch_size=self._batch_size,
                    prompt=self._prompt,
                    truncate_dim=self._dimensions,
                    show_progress_bar=False,
                )
            except (TypeError, UnicodeEncodeError) as error:
                raise InputRejected("a text is not a string of valid Unicode") from error
        return np.asarray(vectors, np.float32)

    def _model(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self._source, self._device)
            return self._loaded


def _load(model: str, device: str | None) -> Any:
    if find_spec("sentence_transformers") is None:
        raise ConfigurationError(
            "this embedder needs sentence-transformers: "
            "run `pip install 'pg-vectorizer[sentence-transformers]'`"
        )
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds

    try:
        return SentenceTransformer(model, device=device)
    except Exception as error:  # hub, torch and transformers raise many kinds
        raise ConfigurationError(
            f"cannot load the model {model}: {type(error).__name__}: {str(error)[:200]}"
        ) from error
