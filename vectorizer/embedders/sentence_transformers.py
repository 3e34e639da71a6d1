"""Any model that sentence-transformers can load; the extra is `sentence-transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vectorizer.embedders._local import LocalEmbedder, loaded
from vectorizer.tokens import tokenizer_cutter

if TYPE_CHECKING:
    from vectorizer.types import JSON

__all__ = ["SentenceTransformersEmbedder"]

_BATCH_SIZE = 32


class SentenceTransformersEmbedder(LocalEmbedder):
    """Embeds with sentence-transformers.

    `model` is the name of a model on the Hugging Face hub or a folder; it is loaded by the first
    use, from the hub's cache on disk if it is there. `device` is as torch names it ("cuda",
    "mps", "cpu"); None takes the best there is. `prompt` comes before each text. `dimensions`
    shortens the vectors of models that allow it. `name` is what the vectors are said to be by,
    where `model` is a folder.

    Calls go one at a time: torch uses all cores by itself.

    Raises ConfigurationError, at first use, if the package or the model is missing.
    """

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
        super().__init__(model, batch_size)
        self.model = name or model
        self._device = device
        self._prompt = prompt
        self._dimensions = dimensions
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
            model = self._model()
            size = getattr(model, "get_embedding_dimension", None)  # its name since release 6
            self._dimensions = int((size or model.get_sentence_embedding_dimension)())
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

    def cut(self, text: str, most: int) -> list[str]:
        """Return the pieces of a text of at most `most` tokens each."""
        tokenizer = getattr(self._model().tokenizer, "backend_tokenizer", None)
        return [text] if tokenizer is None else tokenizer_cutter(tokenizer)(text, most)

    def _encode(self, model: Any, texts: list[str]) -> Any:
        return model.encode(
            texts,
            batch_size=self._batch_size,
            prompt=self._prompt,
            truncate_dim=self._dimensions,
            show_progress_bar=False,
        )

    def _load(self) -> Any:
        name = "sentence-transformers"
        return loaded("sentence_transformers", name, self._source, self._transformer)

    def _transformer(self) -> Any:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds

        return SentenceTransformer(self._source, device=self._device)
