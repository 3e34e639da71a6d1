"""OpenAI's embeddings, and those of any server that speaks its protocol.

`base_url` points it at Azure, Ollama, vLLM, TEI, LiteLLM and the like: docs/pages/embedders.md.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import uniform
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import numpy as np
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
)

from vectorizer.embedders import _openai_answers as answers
from vectorizer.embedders._limiter import Limiter, shared_limiter
from vectorizer.embedders._redaction import hide, one_line
from vectorizer.errors import (
    ConfigurationError,
    EmbedderUnavailable,
    InputRejected,
    InputTooLong,
)
from vectorizer.events import note_retry
from vectorizer.limits import limits_of, pack
from vectorizer.tokens import counter, cutter
from vectorizer.vectors import as_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import openai
    from typing_extensions import Self

    from vectorizer.types import JSON, FloatMatrix

__all__ = ["OpenAIEmbedder"]

_URL = "https://api.openai.com/v1"
_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_FIXED = "text-embedding-ada-002"  # refuses the parameter `dimensions`

_TIMEOUT = 60.0
_MAX_ATTEMPTS = 5
_LONGEST_WAIT = 60.0
_PACED_ATTEMPTS = 4  # that many more, since the first waits are short
_PACED_WAIT = 0.25  # part of the random wait after a 429, where the limiter sets the pace

# OpenAI's own limits: platform.openai.com, API reference, "Create embeddings".
_MAX_TEXTS = 2048
_MAX_TOKENS = 300_000
_MAX_TEXT_TOKENS = 8191
_CONCURRENCY = 8

_MESSAGE = 300  # characters of a server's message that an exception shows
_SECRET_RUN = 8  # so many characters in common with a key or a text are hidden in it
_TEXT_RUN = 16

_TOO_MANY_REQUESTS = 429


class OpenAIEmbedder:
    """Embeds texts with a model of OpenAI, or of a server that speaks its protocol.

    `dimensions` is known for OpenAI's own models and must be given for any other; with
    text-embedding-3-small and -large a smaller number shortens the vectors. A server at
    `base_url` is not told `dimensions` unless the model is one of those two, since many
    servers refuse the parameter.

    The API key is `api_key`, else what is in `api_key_file`, else the environment's
    OPENAI_API_KEY, else what is in the file that OPENAI_API_KEY_FILE names, whatever the
    server; one at `base_url` may need none. OPENAI_BASE_URL stands in for `base_url`, as in
    the official client. With `api_version` requests take Azure's form: the version goes into
    the address, the key into the header `api-key`. `headers` go with every request. Neither
    key nor headers are part of `config`, since both can be secrets: a worker made from the
    configuration takes the key from its own environment (and headers from
    OPENAI_CUSTOM_HEADERS, if its version of the official client knows that).

    `max_texts` and `max_tokens` are the most one request holds, `max_text_tokens` the most
    tokens of one text (None: unknown); what is not given is OpenAI's limit where the model is
    OpenAI's. `concurrency` is the most requests under way at once. Tokens are counted by
    tiktoken if it and its vocabulary are on this machine, else estimated at 3 bytes each.

    Requests of all embedders in this process with the same address, model and key share one
    pace: they wait for what `Retry-After` and `x-ratelimit-*` ask, and slow down on 429.

    `timeout` is in seconds: the longest wait for a connection, and for each next piece of
    an answer. A request is tried at most `max_attempts` times; between two attempts it
    waits as long as the server asks, else for a random time that grows exponentially. A 429
    is no attempt as long as other requests get through, and where none does it is tried four
    times more (half a minute in all).

    One embedder serves any number of threads. It opens its connections when it is first
    used and keeps them until `close`, or as long as it lives; it is a context manager too.

    Raises ConfigurationError if an option cannot work or there is no API key.
    """

    _backoff: float = 1.0
    """Upper bound of the first random wait, in seconds; it doubles with each attempt."""

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        dimensions: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        api_key_file: str | None = None,
        api_version: str | None = None,
        headers: Mapping[str, str] | None = None,
        max_texts: int = _MAX_TEXTS,
        max_tokens: int = _MAX_TOKENS,
        max_text_tokens: int | None = None,
        concurrency: int = _CONCURRENCY,
        timeout: float = _TIMEOUT,
        max_attempts: int = _MAX_ATTEMPTS,
    ) -> None:
        _check_at_least_one(
            dimensions=dimensions,
            max_texts=max_texts,
            max_tokens=max_tokens,
            max_text_tokens=max_text_tokens,
            concurrency=concurrency,
            max_attempts=max_attempts,
        )
        if timeout <= 0:
            raise ConfigurationError(f"timeout must be more than 0 seconds, not {timeout}")
        given = {
            "dimensions": (dimensions, None),
            "base_url": (base_url, None),
            "api_key_file": (api_key_file, None),
            "api_version": (api_version, None),
            "max_texts": (max_texts, _MAX_TEXTS),
            "max_tokens": (max_tokens, _MAX_TOKENS),
            "max_text_tokens": (max_text_tokens, None),
            "concurrency": (concurrency, _CONCURRENCY),
            "timeout": (timeout, _TIMEOUT),
            "max_attempts": (max_attempts, _MAX_ATTEMPTS),
        }
        self._options: dict[str, JSON] = {
            name: value for name, (value, default) in given.items() if value != default
        }
        self._model = model
        self._url = base_url or os.environ.get("OPENAI_BASE_URL") or _URL
        self._where = f"{model} at {_check_url(self._url)}"
        official = self._url.rstrip("/") == _URL
        self._dimensions = _dimensions_of(model, dimensions, official=official)
        sent = _sends_dimensions(model, dimensions, official=official)
        self._extra: dict[str, JSON] = {"dimensions": dimensions} if sent else {}
        self._key = _find_key(api_key, api_key_file, official=official)
        self._headers = _check_headers(headers or {})
        self._query = {"api-version": api_version} if api_version else {}
        if self._query and self._key:
            self._headers.setdefault("api-key", self._key)
        self._timeout = timeout
        self._max_attempts = max_attempts
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        known = _MAX_TEXT_TOKENS if model in _DIMENSIONS else None
        self.max_text_tokens = max_text_tokens or known
        self.concurrency = concurrency
        self.count_tokens = counter(model)
        self.cut = cutter(model)
        self._limiter = shared_limiter((self._url, model, self._key))
        self._slots = threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()
        self._client: openai.OpenAI | None = None
        self._closed = threading.Event()
        self._pause: Callable[[float], None] = sleep_using_event(self._closed)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    @property
    def dimensions(self) -> int:
        """Number of components of each vector."""
        return self._dimensions

    @property
    def config(self) -> dict[str, JSON]:
        """The provider, the model and the options that were given; no key, no headers."""
        return {"provider": "openai", "model": self._model, **self._options}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r}, dimensions={self._dimensions})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections for good.

        Calls of `embed` still under way in other threads end with EmbedderUnavailable:
        those that wait for their next attempt at once, the others within `timeout`.
        """
        self._closed.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Return the vectors of `texts` in order: float32, shape (len(texts), dimensions).

        More than `max_texts` texts or `max_tokens` tokens go in several requests, `concurrency`
        of them at once; a request that the server refuses as too large goes again in halves.
        If one fails, so does the call; `embed_request` is for those who want to keep the rest.

        Raises EmbedderUnavailable if the server does not answer even after all attempts,
        EmbedderRefused if somebody must act (key, model, quota), InputRejected if the
        server refuses these texts (InputTooLong if it is for a single text's length),
        InvalidEmbeddings if its answer has a wrong number of vectors, a wrong dimension or a
        value that is not finite.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a sequence of texts, not a single text")
        requests = [texts[cut] for cut in pack(texts, limits_of(self))]
        if len(requests) == 1:
            return self._embed_or_halve(requests[0])
        if not requests:
            return np.empty((0, self._dimensions), dtype=np.float32)
        with ThreadPoolExecutor(min(self.concurrency, len(requests))) as threads:
            calls = [threads.submit(self._embed_or_halve, request) for request in requests]
            try:
                return np.concatenate([call.result() for call in calls])
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _embed_or_halve(self, texts: Sequence[str]) -> FloatMatrix:
        try:
            return self.embed_request(texts)
        except InputTooLong:
            if len(texts) == 1:
                raise
        middle = len(texts) // 2
        return np.concatenate(
            [self._embed_or_halve(texts[:middle]), self._embed_or_halve(texts[middle:])]
        )

    # One request and its attempts

    def embed_request(self, texts: Sequence[str]) -> FloatMatrix:
        """Send one request, whatever its size, again if need be; return its vectors as `embed`.

        Raises what `embed` raises, InputTooLong also if the texts are too many at once.
        """
        _check_unicode(texts)
        attempts = _Attempts(self._limiter, self._closed, self._max_attempts, self._backoff)
        retrying = Retrying(
            retry=retry_if_exception_type(EmbedderUnavailable),
            stop=attempts.give_up,
            wait=attempts.wait,
            sleep=self._pause,
            before_sleep=_note_retry,
            reraise=True,
        )
        try:
            return retrying(self._attempt, list(texts))
        except EmbedderUnavailable as failure:
            raise EmbedderUnavailable(
                f"{failure} ({attempts})",
                failure.retry_after,
            ) from None

    def _attempt(self, texts: list[str]) -> FloatMatrix:
        tokens = sum(map(self.count_tokens, texts))
        self._check_open()
        self._wait_for_turn(tokens)
        vectors = answers.vectors(self._answer(texts, tokens), len(texts), self._where)
        return as_matrix(vectors, len(texts), self._dimensions)

    def _answer(self, texts: list[str], tokens: int) -> Any:
        with self._slots:
            body = self._post(texts, tokens)
        return answers.parsed(body, self._where)

    def _wait_for_turn(self, tokens: int) -> None:
        """Wait for our place in the pace of all, and again if all were told to wait meanwhile."""
        waiting = self._limiter.reserve(tokens)
        while waiting > 0:
            if waiting > _LONGEST_WAIT or self._closed.is_set():
                self._limiter.failed(tokens)
                self._check_open()
                raise EmbedderUnavailable(
                    f"{self._where}: the provider's limits allow no request for {waiting:.0f} s",
                    waiting,
                )
            pauses = self._limiter.pauses
            self._pause(waiting)
            waiting = 0.0 if self._limiter.pauses == pauses else self._limiter.reserve_again()

    def _post(self, texts: list[str], tokens: int) -> bytes:
        """Send one request and return the body of the answer."""
        client = self._connect()
        import openai  # noqa: PLC0415 - 0.4 s that only those pay who embed

        try:
            # 1,000 texts x 1,536 dimensions take 53 ms with the client's own objects, 27 ms
            # with the raw body parsed by ourselves, and 20 ms if the texts also go in
            # extra_body, where the client does not walk over each of them.
            answer = client.embeddings.with_raw_response.create(
                model=self._model,
                input=[],
                encoding_format="base64",
                extra_body={"input": texts, **self._extra},
            )
        # `from None`: the client's exceptions quote the server, which may quote the key or
        # the texts.
        except openai.APIStatusError as error:
            self._fail(error, texts, tokens)
        except openai.APITimeoutError:
            self._limiter.failed(tokens)
            raise EmbedderUnavailable(
                f"{self._where}: no answer within {self._timeout:g} s"
            ) from None
        except openai.APIConnectionError as error:
            self._limiter.failed(tokens)
            raise EmbedderUnavailable(f"{self._where}: {answers.reason(error)}") from None
        except RuntimeError:
            # Closed by another thread since `_connect`, if it is that.
            self._check_open()
            raise
        self._limiter.passed(tokens, answer.headers)
        return answer.http_response.content

    def _fail(self, error: openai.APIStatusError, texts: list[str], tokens: int) -> NoReturn:
        """Tell the limiter of an answer that is an error, and raise what it stands for."""
        failure = answers.status_failure(error, self._message(error, texts))
        headers = error.response.headers
        if not isinstance(failure, EmbedderUnavailable):
            self._limiter.passed(tokens, headers)
        elif error.status_code == _TOO_MANY_REQUESTS:
            self._limiter.refused(tokens, headers, failure.retry_after)
            raise _PacedError(str(failure), failure.retry_after) from None
        else:
            self._limiter.failed(tokens)
            self._limiter.pause(failure.retry_after or 0.0)
        raise failure from None

    def _connect(self) -> openai.OpenAI:
        with self._lock:
            self._check_open()
            if self._client is None:
                from openai import OpenAI  # noqa: PLC0415 - see _post

                self._client = OpenAI(
                    # The client insists on a key; a server that needs none ignores it.
                    api_key=self._key or "none",
                    base_url=self._url,
                    default_headers=self._headers,
                    default_query=self._query,
                    timeout=self._timeout,
                    max_retries=0,
                )
                # Sockets that are merely forgotten are warned of.
                weakref.finalize(self, self._client.close).atexit = False
            return self._client

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise EmbedderUnavailable(f"{self._where}: this embedder is closed") from None

    def _message(self, error: openai.APIStatusError, texts: Sequence[str]) -> str:
        """Return one line with what the server said, without secrets and texts."""
        secrets = [self._key or "", *self._headers.values()]
        said = one_line(answers.said(error.body)[: 4 * _MESSAGE])
        said = hide(said, secrets, _SECRET_RUN)
        said = hide(said, [one_line(text) for text in texts], _TEXT_RUN)[:_MESSAGE]
        return f"{self._where}: {error.status_code} {said or error.response.reason_phrase}"


class _PacedError(EmbedderUnavailable):
    """A 429: the limiter knows of it and sets the pace."""


class _Attempts:
    """The attempts of one request: how long to wait for the next, and when there is none."""

    def __init__(
        self, limiter: Limiter, closed: threading.Event, most: int, backoff: float
    ) -> None:
        self.number = 0
        self.most = most
        self._limiter = limiter
        self._closed = closed
        self._backoff = backoff
        self._successes = limiter.successes

    def __str__(self) -> str:
        return f"attempt {self.number} of {max(self.number, self.most)}"

    def give_up(self, state: RetryCallState) -> bool:
        """Tell whether the failure of `state` was the last attempt.

        A server that asks for a longer wait than we make is not asked again too early: the
        caller learns the time from the exception.
        """
        before, self._successes = self._successes, self._limiter.successes
        paced = isinstance(_failure(state), _PacedError)
        crowded = paced and self._successes > before
        self.number = 1 if crowded else self.number + 1
        most = self.most + (_PACED_ATTEMPTS if paced and self.most > 1 else 0)
        return (
            (self.number >= most and not crowded)
            or _asked_wait(state) > _LONGEST_WAIT
            or self._closed.is_set()
        )

    def wait(self, state: RetryCallState) -> float:
        """Return the seconds until the next attempt.

        The random part comes on top, so that threads that were told the same time do not all
        come back at once.
        """
        part = _PACED_WAIT if isinstance(_failure(state), _PacedError) else 1.0
        most = min(part * self._backoff * 2.0 ** (self.number - 1), _LONGEST_WAIT)
        spread = uniform(0, most)  # noqa: S311 - not a secret
        return min(_asked_wait(state) + spread, _LONGEST_WAIT)


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _asked_wait(state: RetryCallState) -> float:
    return getattr(_failure(state), "retry_after", None) or 0.0


def _check_unicode(texts: Sequence[str]) -> None:
    """Raise InputRejected if a text holds half a surrogate pair, which no request can carry."""
    for text in texts:
        try:
            text.isascii() or text.encode()
        except UnicodeEncodeError as error:
            raise InputRejected(
                f"a text cannot be encoded as UTF-8: {error.reason} at character {error.start}"
            ) from None


# Options, checked without a connection


def _check_at_least_one(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} must be at least 1, not {value}")


def _check_url(url: str) -> str:
    """Return the host and port of `url`; its path may be a tenant's, so it is left out."""
    try:
        parts = urlsplit(url)
        host = parts.hostname and f"{parts.hostname}:{parts.port}".removesuffix(":None")
    except ValueError:
        host = None
    # `url` is not quoted: what is wrong with it may be a password.
    if not host or parts.scheme not in {"http", "https"} or not _fits_header(url):
        raise ConfigurationError("base_url must have the form http(s)://host[:port]/path")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "base_url must hold no user, password or query, since it is stored; use headers"
        )
    return host


def _dimensions_of(model: str, given: int | None, *, official: bool) -> int:
    known = _DIMENSIONS.get(model)
    if given is None and known is None:
        raise ConfigurationError(
            f"the dimension of model {model!r} is not known: give dimensions (--dimensions), the "
            f"number of components of its vectors"
        )
    # Behind another URL the name may be an alias of any model.
    if given and known and official and (given > known or (model == _FIXED and given != known)):
        raise ConfigurationError(f"{model} has {known} dimensions, it cannot give {given}")
    return given or known or 0


def _sends_dimensions(model: str, given: int | None, *, official: bool) -> bool:
    return given is not None and model != _FIXED and (official or model in _DIMENSIONS)


def _find_key(given: str | None, path: str | None, *, official: bool) -> str | None:
    """Return the key from the arguments, else from the environment, without blanks around."""
    key = given or (path and _read_key(path)) or os.environ.get("OPENAI_API_KEY") or ""
    if not key and (named := os.environ.get("OPENAI_API_KEY_FILE")):
        key = _read_key(named)
    key = key.strip()
    if not key and official:
        raise ConfigurationError(
            "no API key for OpenAI: set OPENAI_API_KEY or OPENAI_API_KEY_FILE, or pass api_key= "
            "or api_key_file="
        )
    if not _fits_header(key):
        raise ConfigurationError("the API key holds a blank or a character that no key has")
    return key or None


def _read_key(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "it is no text"
        raise ConfigurationError(f"cannot read the API key from {path}: {what}") from None


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        # The HTTP client would quote the value in its complaint.
        if not _fits_header(name) or not _fits_header(value.replace(" ", "")):
            raise ConfigurationError(f"header {name!r} must be printable ASCII")
    return {name: value.strip() for name, value in headers.items()}


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _note_retry(state: RetryCallState) -> None:
    note_retry(state.outcome.exception() if state.outcome is not None else None)
