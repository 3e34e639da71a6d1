"""The ONNX models of fastembed on the CPU, without torch: the extra `fastembed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vectorizer.embedders._local import LocalEmbedder, loaded
from vectorizer.tokens import tokenizer_cutter

if TYPE_CHECKING:
    from vectorizer.types import JSON

__all__ = ["FastEmbedEmbedder"]

_MODEL = "BAAI/bge-small-en-v1.5"
_BATCH_SIZE = 64


class FastEmbedEmbedder(LocalEmbedder):
    """Embeds with fastembed.

    `model` is one of `fastembed.TextEmbedding.list_supported_models()`. Its files come from the
    folder `path` if given, else from fastembed's cache (`cache_dir`, FASTEMBED_CACHE_PATH), else
    from the network; `offline` forbids the last. It is loaded by the first use. `threads` are
    those of one call; calls go one at a time.

    Raises ConfigurationError, at first use, if the package or the model is missing.
    """

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
        super().__init__(model, batch_size)
        self.model = model
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

    def cut(self, text: str, most: int) -> list[str]:
        """Return the pieces of a text of at most `most` tokens each."""
        return tokenizer_cutter(self._tokenizer())(text, most)

    def _tokenizer(self) -> Any:
        return self._model().model.tokenizer

    def _encode(self, model: Any, texts: list[str]) -> Any:
        return list(model.embed(texts, batch_size=self._batch_size))

    def _load(self) -> Any:
        return loaded("fastembed", "fastembed", self.model, self._text_embedding)

    def _text_embedding(self) -> Any:
        from fastembed import TextEmbedding  # noqa: PLC0415 - seconds

        return TextEmbedding(
            self.model,
            cache_dir=self._options.get("cache_dir"),
            threads=self._options.get("threads"),
            local_files_only=bool(self._options.get("offline")),
            specific_model_path=self._options.get("path"),
        )
