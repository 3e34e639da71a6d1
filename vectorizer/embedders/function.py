"""A function of yours as an embedder: texts in, vectors out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from vectorizer.concurrency import call_sync, is_async
from vectorizer.errors import ConfigurationError, InputRejected

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from vectorizer.types import JSON

__all__ = ["EmbedFunction", "FunctionEmbedder"]

EmbedFunction: TypeAlias = "Callable[[Sequence[str]], ArrayLike | Awaitable[ArrayLike]]"


class FunctionEmbedder:
    """Embeds with a function of yours, plain or async.

    `function` takes a sequence of texts and returns one vector a text, in order; `model` names
    what makes them, so that they are never mixed with those of another. `dimensions` is found
    out by one call if it is not given. `max_texts` and `max_tokens` are the most that one call
    gets, `max_text_tokens` the most of one text, estimated at 3 bytes a token; `concurrency` is
    the number of calls under way at once, in threads if the function is a plain one.

    A worker started from the shell can make it again if the function is one of a module.

    Raises ConfigurationError for options that cannot work.
    """

    def __init__(
        self,
        function: EmbedFunction,
        *,
        model: str,
        dimensions: int | None = None,
        max_texts: int | None = None,
        max_tokens: int | None = None,
        max_text_tokens: int | None = None,
        concurrency: int = 1,
    ) -> None:
        limits = {
            "max_texts": max_texts,
            "max_tokens": max_tokens,
            "max_text_tokens": max_text_tokens,
            "concurrency": concurrency,
        }
        _check(function, model, {**limits, "dimensions": dimensions})
        self._function = function
        self.model = model
        self._dimensions = dimensions
        self._lock = Lock()
        self._options = {name: value for name, value in limits.items() if value not in {None, 1}}
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.max_text_tokens = max_text_tokens
        self.concurrency = concurrency
        # A coroutine is awaited on the event loop of the caller, so `embed` must be one, too.
        self.embed = self._embed_async if is_async(function) else self._embed

    @property
    def dimensions(self) -> int:
        """Number of components of each vector; calls the function if nobody said."""
        with self._lock:
            if self._dimensions is None:
                self._dimensions = _probe(self._function)
            return self._dimensions

    @property
    def config(self) -> dict[str, JSON]:
        """The function as module:name, the model and the options that were given."""
        module = getattr(self._function, "__module__", None)
        name = getattr(self._function, "__qualname__", type(self._function).__qualname__)
        return {
            "provider": f"{module}:{name}",
            "model": self.model,
            "dimensions": self.dimensions,
            **self._options,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._function!r}, model={self.model!r})"

    def _embed(self, texts: Sequence[str]) -> ArrayLike | Awaitable[ArrayLike]:
        return self._function(_checked(texts))

    async def _embed_async(self, texts: Sequence[str]) -> ArrayLike:
        vectors = self._function(_checked(texts))
        return await vectors if isinstance(vectors, Awaitable) else vectors


def _check(function: object, model: object, numbers: dict[str, int | None]) -> None:
    if not callable(function):
        raise ConfigurationError(f"{function!r} is no function of texts")
    if not isinstance(model, str) or not model:
        raise ConfigurationError("give the model a name: model=")
    for name, value in numbers.items():
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {value!r}")


def _checked(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise TypeError("embed takes a sequence of texts, not a single text")
    for text in texts:
        try:
            text.isascii() or text.encode()
        except UnicodeEncodeError as error:
            raise InputRejected(f"a text is no Unicode: {error.reason}") from None
    return texts


def _probe(function: EmbedFunction) -> int:
    vectors = call_sync(function, ["dimensions"])
    try:
        return len(vectors[0])  # type: ignore[index]
    except (TypeError, IndexError, KeyError) as error:
        raise ConfigurationError(
            f"{function!r} gave no vector for a text, but {str(vectors)[:80]}: it must return one "
            f"a text, or give dimensions (--dimensions)"
        ) from error
