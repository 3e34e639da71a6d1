from __future__ import annotations

import socket

import pytest

from vectorizer.errors import InputTooLong
from vectorizer.limits import Limits, pack
from vectorizer.tokens import counter, cutter, estimate_tokens, halves, tiktoken_cutter

PROSE = "The cat sleeps. It purrs in its sleep, and nobody knows why.\n\n" * 400


def packed(sizes: list[int], max_texts: int, max_tokens: int) -> list[list[int]]:
    texts = ["x" * (3 * size) for size in sizes]
    return [sizes[part] for part in pack(texts, Limits(max_texts, max_tokens))]


def test_packing() -> None:
    assert packed([], 2, 10) == []
    assert packed([1, 1, 1], 2, 10) == [[1, 1], [1]]
    assert packed([5, 5, 1], 9, 10) == [[5, 5], [1]]
    assert packed([11, 1, 11], 9, 10) == [[11], [1], [11]]


def test_estimate_of_tokens() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "abc", "abcd", "東京")] == [0, 1, 1, 2, 2]
    assert estimate_tokens("\ud800") == 1


@pytest.mark.parametrize("cut", [tiktoken_cutter, cutter("some other model")])
def test_a_long_text_is_cut_between_words_and_nothing_is_lost(cut: object) -> None:
    assert callable(cut)
    pieces = cut(PROSE, 100)
    assert "".join(pieces) == PROSE
    assert all(estimate_tokens(piece) <= 150 for piece in pieces)
    assert all(piece[-1] in " \n." for piece in pieces)
    assert cut("short", 100) == ["short"]


def test_openai_s_tokens_are_cut_exactly() -> None:
    # " hello" is one token of cl100k_base, an emoji of a family seven and more.
    assert len(tiktoken_cutter(" hello" * 8191, 8191)) == 1
    assert len(tiktoken_cutter(" hello" * 8192, 8191)) == 2
    assert len(tiktoken_cutter("👩‍👩‍👧" * 1000, 8191)) > 1


def test_tokens_are_counted_without_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("asked the network"))
    assert counter("text-embedding-3-small")("a text of some length") == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two\n\nthree. four", ["one two\n\n", "three. four"]),
        ("one two three four", ["one two ", "three four"]),
        ("xxxx", ["xx", "xx"]),
        ("日本", ["日", "本"]),
    ],
)
def test_halves(text: str, expected: list[str]) -> None:
    assert halves(text) == expected


@pytest.mark.parametrize("length", range(2, 40))
def test_halves_are_never_empty(length: int) -> None:
    for text in ("x" * length, ("a b. c\n\n" * length)[:length]):
        assert "".join(halves(text)) == text
        assert all(halves(text))


@pytest.mark.parametrize("text", ["", "x"])
def test_what_cannot_be_halved(text: str) -> None:
    with pytest.raises(InputTooLong, match="too long for the model"):
        halves(text)
