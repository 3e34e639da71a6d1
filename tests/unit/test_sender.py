from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from vectorizer._sync.sender import Sender
from vectorizer.errors import EmbedderUnavailable, InputTooLong, InvalidEmbeddings
from vectorizer.packing import pack_vectors


class Picky:
    """Refuses what a rule raises for; counts the calls."""

    model = "picky"
    dimensions = 2

    def __init__(self, rule: Callable[[Sequence[str]], object], **limits: Any) -> None:
        self.calls: list[Sequence[str]] = []
        self._rule = rule
        vars(self).update(limits)

    def embed(self, texts: Sequence[str]) -> Any:
        self.calls.append(texts)
        self._rule(texts)
        return np.ones((len(texts), 2), np.float32)


def refuse(*bad: str) -> Callable[[Sequence[str]], None]:
    def rule(texts: Sequence[str]) -> None:
        if any(text in bad for text in texts):
            raise ValueError("bad")

    return rule


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_a_bad_text_costs_two_calls_a_halving(count: int) -> None:
    texts = [f"{number}" for number in range(count)]
    for bad in texts:
        embedder = Picky(refuse(bad))
        sent = Sender(embedder, pack_vectors).send([texts])
        assert set(sent.rejected) == {bad}
        assert set(sent.vectors) == set(texts) - {bad}
        assert len(embedder.calls) - 1 <= 2 * math.log2(count)
        assert sent.requests == len(embedder.calls)


def test_several_bad_texts_are_found() -> None:
    texts = [f"{number}" for number in range(200)]
    bad = {"0", "1", "2", "99", "150", "199"}
    sent = Sender(Picky(refuse(*bad)), pack_vectors).send([texts])
    assert set(sent.rejected) == bad
    assert len(sent.vectors) == 194


def test_where_nothing_is_taken_it_is_given_up() -> None:
    def never(_: Sequence[str]) -> None:
        raise InvalidEmbeddings("wrong")

    embedder = Picky(never)
    sent = Sender(embedder, pack_vectors).send([[f"{number}" for number in range(2000)]])
    assert len(sent.rejected) == 2000
    assert len(embedder.calls) < 40


def test_a_request_too_large_is_halved() -> None:
    def small(texts: Sequence[str]) -> None:
        if len(texts) > 10:
            raise InputTooLong("too many")

    embedder = Picky(small)
    sent = Sender(embedder, pack_vectors).send([[f"{number}" for number in range(80)]])
    assert (len(sent.vectors), sent.rejected) == (80, {})
    assert len(embedder.calls) == 15


def test_nothing_is_sent_after_an_outage() -> None:
    def away(texts: Sequence[str]) -> None:
        if "30" in texts:
            raise EmbedderUnavailable("away", 7)

    embedder = Picky(away, max_texts=10)
    sent = Sender(embedder, pack_vectors).send([[f"{number}" for number in range(100)]])
    assert len(sent.vectors) == 30
    assert len(embedder.calls) == 4
    assert isinstance(sent.interruption, EmbedderUnavailable)
    assert sent.interruption.retry_after == 7


def test_a_lost_connection_is_an_outage() -> None:
    def reset(_: Sequence[str]) -> None:
        raise ConnectionResetError("reset")

    sent = Sender(Picky(reset), pack_vectors).send([["a"]])
    assert isinstance(sent.interruption, EmbedderUnavailable)
    assert "ConnectionResetError: reset" in str(sent.interruption)


def test_groups_share_no_call() -> None:
    embedder = Picky(lambda _: None)
    Sender(embedder, pack_vectors).send([["a", "b"], ["c"]])
    assert embedder.calls == [["a", "b"], ["c"]]


def test_limits_are_kept() -> None:
    embedder = Picky(lambda _: None, max_texts=3, max_tokens=4)
    texts = ["abc", "y" * 9, *(f"{n}zz" for n in range(4))]
    Sender(embedder, pack_vectors).send([texts])
    assert [list(call) for call in embedder.calls] == [texts[:2], texts[2:5], texts[5:]]
