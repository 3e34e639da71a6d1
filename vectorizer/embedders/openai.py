"""OpenAI's embeddings, and those of any server that speaks its protocol.

`base_url` points it at Ollama, vLLM, TEI, LiteLLM, Azure and the like.
"""

from __future__ import annotations

import os
import re
import threading
import time
from binascii import a2b_base64
from calendar import timegm
from email.utils import parsedate
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import numpy as np
from pydantic_core import from_json
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    wait_random_exponential,
)

from vectorizer.errors import (
    ConfigurationError,
    EmbedderError,
    EmbedderRefused,
    EmbedderUnavailable,
    InputRejected,
    InvalidEmbeddings,
)
from vectorizer.vectors import as_matrix, check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import openai
    from numpy.typing import ArrayLike
    from typing_extensions import Self

    from vectorizer.types import JSON, FloatMatrix

__all__ = ["OpenAIEmbedder", "estimate_tokens"]

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

_MESSAGE = 300  # characters of a server's message that an exception shows
_SECRET_RUN = 8  # so many characters in common with a key or a text are hidden in it
_TEXT_RUN = 16

_TRANSIENT = frozenset({408, 409, 425, 429})
_SERVER_ERROR = 500
_REJECTED = frozenset({400, 413, 422})
# These say that somebody must act, whatever the status they come with.
_REMEDIES_BY_CODE = {
    "insufficient_quota": "add credit or raise the limit in the provider's billing settings",
    "billing_not_active": "set up billing with the provider",
    "billing_hard_limit_reached": "raise the limit in the provider's billing settings",
    "invalid_api_key": "check the API key (api_key or OPENAI_API_KEY)",
    "model_not_found": "check the model's name and whether the key has access to it",
}
_REMEDIES_BY_STATUS = {
    401: _REMEDIES_BY_CODE["invalid_api_key"],
    403: "check what the API key has access to",
    404: "check the model's name and base_url",
}
_ELSE = "check the model's name, base_url and the account"


class OpenAIEmbedder:
    """Embeds texts with a model of OpenAI, or of a server that speaks its protocol.

    `dimensions` is known for OpenAI's own models and must be given for any other; with
    text-embedding-3-small and -large a smaller number shortens the vectors. A server at
    `base_url` is not told `dimensions` unless the model is one of those two, since many
    servers refuse the parameter.

    The API key is `api_key`, else the environment's OPENAI_API_KEY, whatever the server;
    one at `base_url` may need none. OPENAI_BASE_URL stands in for `base_url`, as in the
    official client. `headers` go with every request. Neither key nor headers are part of
    `config`, since both can be secrets: a worker made from the configuration takes the key
    from its own environment (and headers from OPENAI_CUSTOM_HEADERS, if its version of the
    official client knows that).

    `timeout` is in seconds: the longest wait for a connection, and for each next piece of
    an answer. A request is tried at most `max_attempts` times; between two attempts it
    waits as long as the server asks, else for a random time that grows exponentially.

    One embedder serves any number of threads. It opens its connections when it is first
    used and keeps them until `close`; it is a context manager too.

    Raises ConfigurationError if an option cannot work or there is no API key.
    """

    max_texts: int = 2048
    """The most texts in one request; `embed` takes more and sends several requests."""

    max_tokens: int = 300_000
    """The most tokens in one request, as `estimate_tokens` counts them."""

    _backoff: float = 1.0
    """Upper bound of the first random wait, in seconds; it doubles with each attempt."""

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        dimensions: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT,
        max_attempts: int = _MAX_ATTEMPTS,
    ) -> None:
        _check_numbers(dimensions, timeout, max_attempts)
        self._model = model
        self._base_url = base_url
        self._url = base_url or os.environ.get("OPENAI_BASE_URL") or _URL
        self._where = f"{model} at {_check_url(self._url)}"
        official = self._url.rstrip("/") == _URL
        self._dimensions = _dimensions_of(model, dimensions, official=official)
        self._given_dimensions = dimensions
        sent = _sends_dimensions(model, dimensions, official=official)
        self._extra: dict[str, JSON] = {"dimensions": dimensions} if sent else {}
        self._key = _find_key(api_key, official=official)
        self._headers = _check_headers(headers or {})
        self._timeout = timeout
        self._max_attempts = max_attempts
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
        options = {"dimensions": self._given_dimensions, "base_url": self._base_url}
        given = {name: value for name, value in options.items() if value is not None}
        config: dict[str, JSON] = {"provider": "openai", "model": self._model, **given}
        if self._timeout != _TIMEOUT:
            config["timeout"] = self._timeout
        if self._max_attempts != _MAX_ATTEMPTS:
            config["max_attempts"] = self._max_attempts
        return config

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

        More than `max_texts` texts or `max_tokens` tokens go in several requests.

        Raises EmbedderUnavailable if the server does not answer even after all attempts,
        EmbedderRefused if somebody must act (key, model, quota), InputRejected if the
        server refuses these texts, InvalidEmbeddings if its answer has a wrong number of
        vectors, a wrong dimension or a value that is not finite.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a sequence of texts, not a single text")
        try:
            requests = list(_pack(texts, self.max_texts, self.max_tokens))
        except UnicodeEncodeError as error:
            raise InputRejected(
                f"a text cannot be encoded as UTF-8: {error.reason} at character {error.start}"
            ) from None
        parts = [self._embed_request(texts[request]) for request in requests]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, self._dimensions), dtype=np.float32), *parts])

    # One request and its attempts

    def _embed_request(self, texts: Sequence[str]) -> FloatMatrix:
        retrying = Retrying(
            retry=retry_if_exception_type(EmbedderUnavailable),
            stop=self._gives_up,
            wait=self._wait,
            sleep=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._attempt, list(texts))
        except EmbedderUnavailable as failure:
            tried = retrying.statistics["attempt_number"]
            raise EmbedderUnavailable(
                f"{failure} (attempt {tried} of {self._max_attempts})", failure.retry_after
            ) from None

    def _attempt(self, texts: list[str]) -> FloatMatrix:
        vectors = _vectors(self._post(texts), len(texts), self._where)
        return as_matrix(vectors, len(texts), self._dimensions)

    def _gives_up(self, state: RetryCallState) -> bool:
        # A server that asks for a longer wait than we make is not asked again too early:
        # the caller learns the time from the exception.
        return (
            state.attempt_number >= self._max_attempts
            or _asked_wait(state) > _LONGEST_WAIT
            or self._closed.is_set()
        )

    def _wait(self, state: RetryCallState) -> float:
        # The random part comes on top, so that threads that were told the same time do
        # not all come back at once.
        backoff = wait_random_exponential(multiplier=self._backoff, max=_LONGEST_WAIT)(state)
        return min(_asked_wait(state) + backoff, _LONGEST_WAIT)

    def _post(self, texts: list[str]) -> bytes:
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
            raise _status_failure(error, self._message(error, texts)) from None
        except openai.APITimeoutError:
            raise EmbedderUnavailable(
                f"{self._where}: no answer within {self._timeout:g} s"
            ) from None
        except openai.APIConnectionError as error:
            raise EmbedderUnavailable(f"{self._where}: {_reason(error)}") from None
        except RuntimeError:
            # Closed by another thread since `_connect`, if it is that.
            self._check_open()
            raise
        return answer.http_response.content

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
                    timeout=self._timeout,
                    max_retries=0,
                )
            return self._client

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise EmbedderUnavailable(f"{self._where}: this embedder is closed") from None

    def _message(self, error: openai.APIStatusError, texts: Sequence[str]) -> str:
        """Return one line with what the server said, without secrets and texts."""
        secrets = [self._key or "", *self._headers.values()]
        said = _one_line(_said(error.body)[: 4 * _MESSAGE])
        said = _hide(said, secrets, _SECRET_RUN)
        said = _hide(said, [_one_line(text) for text in texts], _TEXT_RUN)[:_MESSAGE]
        return f"{self._where}: {error.status_code} {said or error.response.reason_phrase}"


# Options, checked without a connection


def _check_numbers(dimensions: int | None, timeout: float, max_attempts: int) -> None:
    if dimensions is not None and dimensions < 1:
        raise ConfigurationError(f"dimensions must be at least 1, not {dimensions}")
    if timeout <= 0:
        raise ConfigurationError(f"timeout must be more than 0 seconds, not {timeout}")
    if max_attempts < 1:
        raise ConfigurationError(f"max_attempts must be at least 1, not {max_attempts}")


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
            f"the dimension of model {model!r} is not known: pass dimensions=, the number of "
            f"components of its vectors"
        )
    # Behind another URL the name may be an alias of any model.
    if given and known and official and (given > known or (model == _FIXED and given != known)):
        raise ConfigurationError(f"{model} has {known} dimensions, it cannot give {given}")
    return given or known or 0


def _sends_dimensions(model: str, given: int | None, *, official: bool) -> bool:
    return given is not None and model != _FIXED and (official or model in _DIMENSIONS)


def _find_key(given: str | None, *, official: bool) -> str | None:
    """Return the key from the argument, else from the environment, without blanks around."""
    key = (given or os.environ.get("OPENAI_API_KEY") or "").strip()
    if not key and official:
        raise ConfigurationError("no API key for OpenAI: set OPENAI_API_KEY or pass api_key=")
    if not _fits_header(key):
        raise ConfigurationError("the API key holds a blank or a character that no key has")
    return key or None


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        # The HTTP client would quote the value in its complaint.
        if not _fits_header(name) or not _fits_header(value.replace(" ", "")):
            raise ConfigurationError(f"header {name!r} must be printable ASCII")
    return {name: value.strip() for name, value in headers.items()}


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


# Requests


def estimate_tokens(text: str) -> int:
    """Return an estimate of the tokens of `text`: a third of its UTF-8 bytes, rounded up.

    That is more than English has (about 4 bytes a token), but not an upper bound: emoji
    and rare scripts can have more tokens.
    """
    return -(-len(text.encode()) // 3)


def _pack(texts: Sequence[str], max_texts: int, max_tokens: int) -> Iterator[slice]:
    """Cut `texts` into the fewest runs that keep both limits; a text over them goes alone."""
    start = tokens = 0
    for position, text in enumerate(texts):
        size = estimate_tokens(text)
        full = position - start == max_texts or tokens + size > max_tokens
        if full and position > start:
            yield slice(start, position)
            start, tokens = position, 0
        tokens += size
    if len(texts) > start:
        yield slice(start, len(texts))


# Answers


def _vectors(body: bytes, texts: int, where: str) -> list[ArrayLike]:
    """Return the vectors of an answer in the order of their `index`."""
    try:
        # json.loads takes 4 ms for 1,000 vectors of 1,536 dimensions, this 0.8.
        answer = from_json(body)
    except ValueError as error:
        # Cut off on the way, or the page of a proxy: the next attempt may do better.
        raise EmbedderUnavailable(
            f"{where}: the answer is not JSON ({error}); check base_url if this stays so"
        ) from None
    try:
        items = answer["data"]
        check_count(len(items), texts)
        return _in_order(items)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidEmbeddings(
            f"{where}: expected data with index and embedding, got something else: {error!r:.80}"
        ) from None


def _in_order(items: Sequence[Any]) -> list[ArrayLike]:
    rows: list[ArrayLike | None] = [None] * len(items)
    for position, item in enumerate(items):
        index = item.get("index", position)
        if index not in range(len(items)) or rows[index] is not None:
            raise InvalidEmbeddings(
                f"expected each index from 0 to {len(items) - 1} once, got {index!r:.20} "
                f"in vector {position}"
            )
        rows[index] = _row(item["embedding"])
    return cast("list[ArrayLike]", rows)


def _row(embedding: str | list[float]) -> ArrayLike:
    # Some servers answer in lists of floats whatever they are asked for.
    if isinstance(embedding, str):
        return np.frombuffer(a2b_base64(embedding), dtype="<f4")
    return embedding


# Failures


def _status_failure(error: openai.APIStatusError, message: str) -> EmbedderError:
    """Return the exception that an answer of status 4xx or 5xx stands for."""
    status = error.status_code
    remedy = _REMEDIES_BY_CODE.get(str(error.code)) or _REMEDIES_BY_CODE.get(str(error.type))
    if remedy:
        return EmbedderRefused(f"{message}; {remedy}")
    if status in _TRANSIENT or status >= _SERVER_ERROR:
        return EmbedderUnavailable(message, _retry_after(error.response.headers, time.time()))
    if status in _REJECTED:
        return InputRejected(message)
    return EmbedderRefused(f"{message}; {_REMEDIES_BY_STATUS.get(status, _ELSE)}")


def _said(body: object) -> str:
    """Return the message in the body of an error, in the forms that servers are known for."""
    match body:
        case {"message": str(text)} | {"msg": str(text)}:
            return text
        case {"error": inner} | {"detail": inner} | [inner, *_]:
            return _said(inner)
        case str() if not body.lstrip().startswith("<"):  # the page of a proxy
            return body
        case _:
            return ""


def _reason(error: openai.APIConnectionError) -> str:
    # The client says "Connection error."; what happened is in the cause.
    cause = error.__cause__
    return f"{type(cause).__name__}: {cause}" if cause else str(error)


def _retry_after(headers: Mapping[str, str], clock: float) -> float | None:
    """Return the seconds that `headers` ask us to wait, if they do.

    A date is compared with the server's own, if it sent one: our clock may be off.
    """
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    until = _http_date(headers.get("retry-after", ""))
    now = _http_date(headers.get("date", "")) or clock
    return None if until is None else max(0.0, until - now)


def _http_date(text: str) -> float | None:
    try:
        parsed = parsedate(text)
        return None if parsed is None else float(timegm(parsed))
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _asked_wait(state: RetryCallState) -> float:
    failure = state.outcome and state.outcome.exception()
    return getattr(failure, "retry_after", None) or 0.0


# What a message must not show


def _hide(message: str, hidden: Sequence[str], run: int) -> str:
    """Put an ellipsis for all of `hidden` in `message`.

    That is for every stretch of `run` or more characters that occurs in one of them, since
    servers quote in part, and for the shorter ones where they stand as words.
    """
    marks = bytearray(len(message))
    for start, stop in _found(message, hidden, run):
        marks[start:stop] = bytes([1]) * (stop - start)
    groups = groupby(zip(marks, message, strict=True), key=itemgetter(0))
    return "".join("…" if mark else "".join(c for _, c in group) for mark, group in groups)


def _found(message: str, hidden: Sequence[str], run: int) -> Iterator[tuple[int, int]]:
    everything = "\0".join(hidden)
    for start in range(len(message) - run + 1):
        if message[start : start + run] in everything:
            yield start, start + run
    for short in hidden:
        if 0 < len(short) < run and short in message:
            word = rf"(?<!\w){re.escape(short)}(?!\w)"
            yield from (match.span() for match in re.finditer(word, message))


def _one_line(text: str) -> str:
    # A quoted text may have its line ends written as escapes.
    return re.sub(r"(?:\s|\\[nrt])+", " ", text).strip()
