"""How many tokens a text has, and where to cut one that has too many.

Counts are exact where tiktoken and its vocabulary are on this machine, else an estimate. Nothing
here ever uses the network: tiktoken alone would, to fetch a vocabulary it lacks.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vectorizer.errors import InputTooLong

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter
    from tokenizers import Tokenizer

__all__ = [
    "Cutter",
    "counter",
    "cutter",
    "estimate_tokens",
    "halves",
    "tiktoken_cutter",
    "tokenizer_cutter",
]

Cutter: TypeAlias = Callable[[str, int], list[str]]
"""`cut(text, most)`: the pieces of `text`, in order, of at most `most` tokens each."""

# OpenAI's embedding models all use this vocabulary. tiktoken keeps it in a file named by the SHA-1
# of its address and reads it only if it has this SHA-256 (tiktoken_ext/openai_public.py).
_ENCODING = "cl100k_base"
_CACHED_AS = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_MODELS = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")

# A piece this short that is still too long is not the text's fault.
_SHORTEST = 2

_BREAKS = ("\n\n", "\n", ". ", " ")


def estimate_tokens(text: str) -> int:
    """Return an estimate of the tokens of `text`: a third of its UTF-8 bytes, rounded up.

    That is more than English has (about 4 bytes a token), but not an upper bound: emoji
    and rare scripts can have more tokens, though never more than bytes.
    """
    return -(-_bytes(text) // 3)


def counter(model: str) -> Callable[[str], int]:
    """Return what counts the tokens of a text: tiktoken if it can, else the estimate."""
    return (_tiktoken() if model in _MODELS else None) or estimate_tokens


def cutter(model: str) -> Cutter:
    """Return what cuts texts for `model`, exactly for OpenAI's models, else by the estimate."""
    return tiktoken_cutter if model in _MODELS else _estimated_cutter


def tiktoken_cutter(text: str, most: int) -> list[str]:
    """Cut at paragraphs, sentences or words into pieces of at most `most` tokens of cl100k_base.

    The vocabulary comes with semantic-text-splitter. No character is lost.
    """
    # A token is at least a byte: most texts need no counting.
    return [text] if _bytes(text) <= most else _splitter(most).chunks(text)


def tokenizer_cutter(tokenizer: Tokenizer) -> Cutter:
    """Return what cuts texts by a Hugging Face tokenizer; special tokens count."""
    import tokenizers  # noqa: PLC0415 - an extra's

    # The model's own cuts off what is too long, so that nothing ever would be.
    whole = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()
    special = whole.num_special_tokens_to_add(is_pair=False)

    def cut(text: str, most: int) -> list[str]:
        # A token is at least a byte.
        if _bytes(text) + special <= most:
            return [text]
        return _tokenizer_splitter(whole, max(most - special, 1)).chunks(text)

    return cut


def _estimated_cutter(text: str, most: int) -> list[str]:
    if estimate_tokens(text) <= most:
        return [text]
    from semantic_text_splitter import TextSplitter  # noqa: PLC0415 - heavy, seldom needed

    return TextSplitter.from_callback(estimate_tokens, most, trim=False).chunks(text)


def halves(text: str) -> list[str]:
    """Cut `text` in two, near its middle, behind a paragraph, line, sentence or word if it can.

    For a text that was refused as too long by a model whose tokens nobody can count. Raises
    InputTooLong if there is nothing left to cut.
    """
    if len(text) < _SHORTEST:
        raise InputTooLong("the text is too long for the model even without its chunk")
    low, middle, high = len(text) // 3, len(text) // 2, -(-len(text) * 2 // 3)
    for mark in _BREAKS:
        before = text.rfind(mark, low, middle)
        at = before if before >= 0 else text.find(mark, middle, high)
        end = at + len(mark)
        if at >= 0 and end < len(text):
            return [text[:end], text[end:]]
    return [text[:middle], text[middle:]]


def _bytes(text: str) -> int:
    # Lone surrogates are refused where the text is sent; here they only count.
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


@cache
def _splitter(most: int) -> TextSplitter:
    from semantic_text_splitter import TextSplitter  # noqa: PLC0415 - heavy, seldom needed

    return TextSplitter.from_tiktoken_model(_MODELS[0], most, trim=False)


@lru_cache(maxsize=16)
def _tokenizer_splitter(tokenizer: Tokenizer, most: int) -> TextSplitter:
    from semantic_text_splitter import TextSplitter  # noqa: PLC0415 - heavy, seldom needed

    return TextSplitter.from_huggingface_tokenizer(tokenizer, most, trim=False)


@cache
def _tiktoken() -> Callable[[str], int] | None:
    """Return tiktoken's count if it is installed and would not have to download anything."""
    if find_spec("tiktoken") is None or not _vocabulary_at_hand():
        return None
    encoding = import_module("tiktoken").get_encoding(_ENCODING)
    return lambda text: len(encoding.encode_ordinary(text))


def _vocabulary_at_hand() -> bool:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    path = Path(tempfile.gettempdir(), "data-gym-cache") if folder is None else Path(folder)
    try:
        found = hashlib.sha256((path / _CACHED_AS).read_bytes()).hexdigest()
    except OSError:
        return False
    return found == _SHA256
