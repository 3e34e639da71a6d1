"""Properties of cutting again; hypothesis prints what failed and how to repeat it."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorizer.chunking import Chunker
from vectorizer.rechunking import rechunk

SMALL = Chunker(20, 60)
WORDS = st.sampled_from(["cat ", "dog. ", "Ünï ", "東京。", "x" * 70, "a", "\n", "\n\n", " \n \n",
                         "# H\n", "T\n===\n", "```\n", "\x1c", "\u00a0", "- i\n"])  # fmt: skip
TEXTS = st.lists(WORDS, max_size=60).map("".join)
KINDS = st.sampled_from(
    [SMALL, Chunker(1, 1), Chunker(20, 60, splitter="markdown"), Chunker(5, 9, unit="tokens")]
)


def without_space(text: str) -> str:
    return "".join(text.split())


@given(KINDS, TEXTS, TEXTS)
@settings(max_examples=150, deadline=None)
def test_it_keeps_the_promises_of_cutting(chunker: Chunker, before: str, after: str) -> None:
    old = chunker.split(before)
    chunks = rechunk(chunker, after, old)
    assert all(chunk and chunk == chunk.strip() for chunk in chunks)
    assert without_space("".join(chunks)) == without_space(after)
    if chunker.unit == "characters":
        assert all(len(chunk) <= chunker.max_chars for chunk in chunks)


@given(KINDS, TEXTS, TEXTS)
@settings(max_examples=150, deadline=None)
def test_cutting_once_more_changes_nothing(chunker: Chunker, before: str, after: str) -> None:
    chunks = rechunk(chunker, after, chunker.split(before))
    assert rechunk(chunker, after, chunks) == chunks
    assert rechunk(chunker, after, chunker.split(after)) == chunker.split(after)


@given(TEXTS, st.lists(st.text(max_size=30), max_size=90))
@settings(max_examples=150, deadline=None)
def test_any_old_chunks_do_no_harm(text: str, old: list[str]) -> None:
    chunks = rechunk(SMALL, text, [chunk.strip() for chunk in old])
    assert without_space("".join(chunks)) == without_space(text)
    assert all(len(chunk) <= 60 for chunk in chunks)


@given(TEXTS, TEXTS, TEXTS)
@settings(max_examples=150, deadline=None)
def test_an_edit_leaves_the_chunks_around_it(head: str, edit: str, tail: str) -> None:
    before, after = f"{head}\n\nold\n\n{tail}", f"{head}\n\n{edit}\n\n{tail}"
    old = SMALL.split(before)
    chunks = rechunk(SMALL, after, old)
    # At most those that held the edit, and one on each side that joined it, are gone.
    lost = [chunk for chunk in old if chunk not in chunks]
    assert sum(map(len, lost)) <= 3 * 60


def prose(chance: random.Random, paragraphs: int) -> list[str]:
    return [
        " ".join(
            chance.choices(["cats", "purr,", "because", "they", "may."], k=chance.randint(5, 90))
        )
        for _ in range(paragraphs)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_an_edited_paragraph_costs_a_chunk_or_two(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same in every run
    paragraphs = prose(chance, 400)
    old = Chunker().split("\n\n".join(paragraphs))
    paragraphs[0] = "Another beginning. " + paragraphs[0]
    paragraphs[200] += " And another end."
    del paragraphs[300]
    chunks = rechunk(Chunker(), "\n\n".join(paragraphs), old)
    new = [chunk for chunk in chunks if chunk not in old]
    assert len(new) <= 6
    assert sum(map(len, new)) <= 5000


def test_paragraphs_that_change_places_stay() -> None:
    chance = random.Random(1)  # noqa: S311 - the same in every run
    parts = ["\n\n".join(prose(chance, 20)) for _ in range(2)]
    old = Chunker().split("\n\n".join(parts))
    chunks = rechunk(Chunker(), "\n\n".join(parts[::-1]), old)
    assert sum(chunk in old for chunk in chunks) >= len(old) // 2


def test_a_tiny_gap_joins_a_neighbour() -> None:
    old = ["a cat sleeps on the mat all day", "a dog barks at it all the day"]
    chunker = Chunker(30, 60)
    assert rechunk(chunker, f"{old[0]}\n\nHa\n\n{old[1]}", old) == [old[0], f"Ha\n\n{old[1]}"]
    assert rechunk(chunker, "Ha", old) == ["Ha"]


@pytest.mark.parametrize("seed", range(10))
def test_other_white_space_moves_no_cut(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same in every run
    text = "\n\n".join(prose(chance, 60))
    old = Chunker(500, 800).split(text)
    wrapped = re.sub(r"\s+", lambda _: chance.choice([" ", "\n", "\r\n  ", "\t"]), text)
    chunks = rechunk(Chunker(500, 1000), wrapped, old)
    assert [chunk.split() for chunk in chunks] == [chunk.split() for chunk in old]
    edited = wrapped.replace("purr,", "hiss,", 1)
    chunks = [" ".join(chunk.split()) for chunk in rechunk(Chunker(500, 1000), edited, old)]
    assert sum(" ".join(chunk.split()) not in chunks for chunk in old) == 1


def test_words_that_only_hold_those_of_a_chunk_are_others() -> None:
    old = ["a cat sleeps on the mat all day", "a dog  barks"]
    chunks = rechunk(Chunker(5, 40), f"{old[0]}\n\nAgra dog barksalot", old)
    assert chunks == [old[0], "Agra dog barksalot"]


def test_what_grows_little_by_little_is_not_left_in_little_pieces() -> None:
    comments = prose(random.Random(6), 300)  # noqa: S311 - the same in every run
    chunks: list[str] = []
    sent = 0
    for number in range(1, len(comments) + 1):
        old = chunks
        chunks = rechunk(Chunker(), "\n\n".join(comments[:number]), old)
        sent += sum(len(chunk) for chunk in chunks if chunk not in old)
    length = sum(map(len, chunks))
    assert length / len(chunks) >= 300
    assert sent <= 3 * length


def test_where_chunks_overlap_the_old_ones_do_not_matter() -> None:
    text = "\n\n".join(prose(random.Random(2), 40))  # noqa: S311 - the same in every run
    chunker = Chunker(500, 1000, 100)
    assert rechunk(chunker, text, [text[10:600]]) == chunker.split(text)
    assert rechunk(Chunker(splitter="none"), text, [text[10:600]]) == [text]


def test_html_is_cut_again_as_its_text() -> None:
    chunker = Chunker(splitter="html")
    body = [f"<p>{paragraph}</p>" for paragraph in prose(random.Random(3), 60)]  # noqa: S311
    old = chunker.split("".join(body))
    body[30] = "<p>Something <b>else</b>.</p>"
    chunks = rechunk(chunker, "".join(body), old)
    assert 1 <= sum(chunk not in old for chunk in chunks) <= 3


@pytest.mark.parametrize(
    "text",
    ["x\n" * 200_000, "x" * 400_000, "word " * 80_000, "# h\n" * 100_000, "\n" * 400_000 + "x"],
)
def test_long_texts_take_no_more_than_linear_time(text: str) -> None:
    old = Chunker().split(text)
    middle = len(text) // 2
    edited = f"Edited. {text[:middle]} Edited. {text[middle:]} Edited."
    chunks = rechunk(Chunker(), edited, old)
    assert without_space("".join(chunks)) == without_space(edited)


def test_many_edits_of_a_long_text() -> None:
    chance = random.Random(4)  # noqa: S311 - the same in every run
    paragraphs = prose(chance, 5000)
    old = Chunker().split("\n\n".join(paragraphs))
    for number in range(0, 5000, 50):
        paragraphs[number] += " Edited."
    chunks = rechunk(Chunker(), "\n\n".join(paragraphs), old)
    assert sum(chunk not in old for chunk in chunks) <= 250


def test_an_edit_in_every_other_chunk_of_a_long_text_takes_linear_time() -> None:
    paragraphs = [f"word{number:05} " * 60 for number in range(16_000)]
    old = Chunker().split("\n\n".join(paragraphs))
    for number in range(0, len(paragraphs), 2):
        paragraphs[number] = paragraphs[number].replace(" ", " edited ", 1)
    chunks = rechunk(Chunker(), "\n\n".join(paragraphs), old)
    assert set(old[1::2]) <= set(chunks)


def test_white_space_in_several_gaps_at_once() -> None:
    paragraphs = prose(random.Random(7), 40)  # noqa: S311 - the same in every run
    chunker = Chunker(1, 1000, splitter="markdown")
    old = chunker.split("\n\n".join(paragraphs))
    parts = [*old]
    for number in range(0, len(parts), 3):
        parts[number] = parts[number].replace(" ", "\n")
    chunks = rechunk(chunker, "\n\n".join(parts), old)
    assert [chunk.split() for chunk in chunks] == [chunk.split() for chunk in old]
