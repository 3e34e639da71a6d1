from __future__ import annotations

import pytest

from vectorizer.chunking import Chunker
from vectorizer.errors import ConfigurationError, InputTooLong
from vectorizer.limits import Limits
from vectorizer.row_texts import TextMaker
from vectorizer.template import Template
from vectorizer.tokens import cutter, estimate_tokens

LONG = " ".join(f"word{number}" for number in range(2000))
LIMITS = Limits(max_text_tokens=100, cut=cutter("test"))


def maker(
    policy: str = "split", limits: Limits = LIMITS, template: str = "{t}: {chunk}"
) -> TextMaker:
    return TextMaker(Template(template), Chunker(20_000, 30_000), limits, policy)


def test_a_short_text_is_left_alone() -> None:
    for policy in ("split", "truncate", "dead-letter"):
        assert maker(policy).texts(["short", "title"]) == ["title: short"]


def test_a_long_text_is_split_and_each_part_has_the_template() -> None:
    texts = maker().texts([LONG, "title"])
    assert all(estimate_tokens(text) <= 100 for text in texts)
    assert all(text.startswith("title: word") for text in texts)
    assert " ".join(text.removeprefix("title: ") for text in texts) == LONG


def test_a_long_text_is_truncated() -> None:
    (text,) = maker("truncate").texts([LONG, "title"])
    assert f"title: {LONG}".startswith(text)
    assert 80 < estimate_tokens(text) <= 100


def test_a_long_text_fails_its_row() -> None:
    with pytest.raises(InputTooLong, match="longer than the model takes; allow on_long_text"):
        maker("dead-letter").texts([LONG, "title"])


def test_a_template_that_leaves_no_room() -> None:
    with pytest.raises(InputTooLong, match="the template takes 668 of the 100 tokens"):
        maker().texts(["chunk", "x" * 2000])
    (text,) = maker("truncate").texts(["chunk", "x" * 2000])
    assert estimate_tokens(text) <= 100


def test_what_the_model_refused_is_halved_until_it_fits() -> None:
    texts: list[str] = []
    refused: set[str] = set()
    while too_long := {text for text in texts or [f"t: {LONG}"] if len(text) > 1000} - refused:
        refused |= too_long
        texts = maker(limits=Limits()).texts([LONG, "t"], refused=refused)
    assert all(len(text) <= 1000 for text in texts)
    assert " ".join(text.removeprefix("t: ") for text in texts) == LONG


def test_what_the_model_refused_is_truncated_by_halves() -> None:
    text = f"t: {LONG}"
    (shorter,) = maker("truncate", Limits()).texts([LONG, "t"], refused={text})
    assert text.startswith(shorter)
    assert len(text) / 3 <= len(shorter) < len(text)


def test_blank_and_missing_texts_give_none() -> None:
    assert maker().texts([None, "title"]) == []
    assert maker().texts([" \n", "title"]) == []


def test_an_unknown_policy() -> None:
    with pytest.raises(ConfigurationError, match="one of split, truncate, dead-letter"):
        maker("ignore")
