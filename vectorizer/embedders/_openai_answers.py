"""Answers in OpenAI's protocol: vectors in order, and what each kind of failure stands for."""

from __future__ import annotations

import re
import time
from binascii import a2b_base64
from calendar import timegm
from email.utils import parsedate
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic_core import from_json

from vectorizer.errors import (
    EmbedderError,
    EmbedderRefused,
    EmbedderUnavailable,
    InputRejected,
    InputTooLong,
    InvalidEmbeddings,
)
from vectorizer.vectors import check_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import openai
    from numpy.typing import ArrayLike

__all__ = ["parsed", "reason", "retry_after", "said", "status_failure", "vectors"]
_TRANSIENT = frozenset({408, 409, 425, 429})
_SERVER_ERROR = 500
_REJECTED = frozenset({400, 413, 422})
_TOO_LARGE = 413
# As OpenAI, Azure, vLLM, TEI, Ollama, LiteLLM and llama.cpp say it.
_TOO_LONG = re.compile(
    r"max\w*( \w+){0,3} (length|tokens)|max_tokens_per_request|(fewer|less) than \d+ tokens"
    r"|context (length|size|window)|too (long|large|many (tokens|inputs))|batch size"
    r"|array.{0,40}\d+ or less",
    re.IGNORECASE,
)
# These say that somebody must act, whatever the status they come with.
_REMEDIES_BY_CODE = {
    "insufficient_quota": "add credit or raise the limit in the provider's billing settings",
    "billing_not_active": "set up billing with the provider",
    "billing_hard_limit_reached": "raise the limit in the provider's billing settings",
    "invalid_api_key": "check the API key (api_key, api_key_file or OPENAI_API_KEY)",
    "model_not_found": "check the model's name and whether the key has access to it",
}
_REMEDIES_BY_STATUS = {
    401: _REMEDIES_BY_CODE["invalid_api_key"],
    403: "check what the API key has access to",
    404: "check the model's name and base_url",
}
_ELSE = "check the model's name, base_url and the account"


def parsed(body: bytes, where: str) -> Any:
    """Return the JSON of an answer."""
    try:
        # json.loads takes 4 ms for 1,000 vectors of 1,536 dimensions, this 0.8.
        return from_json(body)
    except ValueError as error:
        # Cut off on the way, or the page of a proxy: the next attempt may do better.
        raise EmbedderUnavailable(
            f"{where}: the answer is not JSON ({error}); check base_url if this stays so"
        ) from None


def vectors(answer: Any, texts: int, where: str) -> list[ArrayLike]:
    """Take the vectors out of an answer, in the order of their `index`."""
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
        # Taken out, so that text and vectors of an answer are not in memory all at once.
        rows[index] = _row(item.pop("embedding"))
    return cast("list[ArrayLike]", rows)


def _row(embedding: str | list[float]) -> ArrayLike:
    # Some servers answer in lists of floats whatever they are asked for.
    if isinstance(embedding, str):
        return np.frombuffer(a2b_base64(embedding), dtype="<f4")
    return embedding


def status_failure(error: openai.APIStatusError, message: str) -> EmbedderError:
    """Return the exception that an answer of status 4xx or 5xx stands for."""
    status = error.status_code
    remedy = _REMEDIES_BY_CODE.get(str(error.code)) or _REMEDIES_BY_CODE.get(str(error.type))
    if remedy:
        return EmbedderRefused(f"{message}; {remedy}")
    if status in _TRANSIENT or status >= _SERVER_ERROR:
        return EmbedderUnavailable(message, retry_after(error.response.headers, time.time()))
    if status in _REJECTED:
        too_long = status == _TOO_LARGE or _TOO_LONG.search(f"{error.code} {message}")
        return InputTooLong(message) if too_long else InputRejected(message)
    return EmbedderRefused(f"{message}; {_REMEDIES_BY_STATUS.get(status, _ELSE)}")


def said(body: object) -> str:
    """Return the message in the body of an error, in the forms that servers are known for."""
    match body:
        case {"message": str(text)} | {"msg": str(text)}:
            return text
        case {"error": inner} | {"detail": inner} | [inner, *_]:
            return said(inner)
        case str() if not body.lstrip().startswith("<"):  # the page of a proxy
            return body
        case _:
            return ""


def reason(error: openai.APIConnectionError) -> str:
    # The client says "Connection error."; what happened is in the cause.
    cause = error.__cause__
    return f"{type(cause).__name__}: {cause}" if cause else str(error)


def retry_after(headers: Mapping[str, str], clock: float) -> float | None:
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
