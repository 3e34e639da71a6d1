"""Keeps embeddings in step with PostgreSQL tables.

`Vectorizer` and `AsyncVectorizer` do everything by themselves; `pgvectorizer.Vectorize` hands
changed rows to a function of yours; `client` reads and writes vector collections.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vectorizer import client, pgvectorizer
    from vectorizer._async.vectorizer import AsyncVectorizer
    from vectorizer._sync.vectorizer import Vectorizer
    from vectorizer.batch import Counts
    from vectorizer.embedders.function import FunctionEmbedder
    from vectorizer.embedders.minilm import MiniLMEmbedder
    from vectorizer.embedders.openai import OpenAIEmbedder
    from vectorizer.search import SearchResult
    from vectorizer.types import Embedder
    from vectorizer.worker import Worker, WorkerOptions

__all__ = [
    "AsyncVectorizer",
    "Counts",
    "Embedder",
    "FunctionEmbedder",
    "MiniLMEmbedder",
    "OpenAIEmbedder",
    "SearchResult",
    "Vectorizer",
    "Worker",
    "WorkerOptions",
    "client",
    "pgvectorizer",
]

# Loaded at first use: importing the package costs milliseconds and none of the models.
_HOMES = {
    "AsyncVectorizer": "vectorizer._async.vectorizer",
    "Counts": "vectorizer.batch",
    "Embedder": "vectorizer.types",
    "FunctionEmbedder": "vectorizer.embedders.function",
    "MiniLMEmbedder": "vectorizer.embedders.minilm",
    "OpenAIEmbedder": "vectorizer.embedders.openai",
    "SearchResult": "vectorizer.search",
    "Vectorizer": "vectorizer._sync.vectorizer",
    "Worker": "vectorizer.worker._worker",
    "WorkerOptions": "vectorizer.worker._options",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in __all__:
        return import_module(f"vectorizer.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
