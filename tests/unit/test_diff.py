from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from vectorizer.diff import StoredChunk, diff_chunks
from vectorizer.identifiers import content_hash

KEY = b"1:k"
Stored = list[tuple[StoredChunk, str]]


def applied(texts: list[str], stored: Stored, time: int = 0) -> tuple[Stored, int, int]:
    """Do to `stored` what the diff says; return it with how many were new and were written."""
    diff = diff_chunks(KEY, time, texts, [chunk for chunk, _ in stored])
    text_of = {chunk.id: text for chunk, text in stored}
    after = [
        (StoredChunk(kept.id, kept.time, kept.chunk, kept.stored.content_hash, True),
         text_of[kept.stored.id])
        for kept in diff.kept
    ] + [(StoredChunk(new.id, time, new.chunk, new.content_hash, True), new.text)
         for new in diff.new]  # fmt: skip
    assert {chunk.id for chunk in diff.stale} | {kept.stored.id for kept in diff.kept} == set(
        text_of
    )
    assert not {chunk.id for chunk in diff.stale} & {kept.stored.id for kept in diff.kept}
    return after, len(diff.new), sum(kept.changed for kept in diff.kept)


def texts_in(stored: Stored) -> list[str]:
    return [text for _, text in sorted(stored, key=lambda pair: pair[0].chunk)]


def test_everything_is_new_at_first() -> None:
    stored, new, _ = applied(["a", "b", "c"], [])
    assert (texts_in(stored), new) == (["a", "b", "c"], 3)
    assert [chunk.content_hash for chunk, _ in stored] == [content_hash(text) for text in "abc"]


def test_the_same_again_is_no_work() -> None:
    stored, _, _ = applied(["a", "b", "a"], [])
    assert applied(["a", "b", "a"], stored) == (stored, 0, 0)


def test_one_edited_chunk_is_all_that_is_new() -> None:
    stored, _, _ = applied(["a", "b", "c"], [])
    after, new, written = applied(["a", "B", "c"], stored)
    assert (texts_in(after), new, written) == (["a", "B", "c"], 1, 0)


def test_an_inserted_chunk_only_moves_the_others() -> None:
    stored, _, _ = applied(["a", "b"], [])
    after, new, written = applied(["x", "a", "b"], stored)
    assert (texts_in(after), new, written) == (["x", "a", "b"], 1, 2)
    assert {chunk.id for chunk, _ in stored} < {chunk.id for chunk, _ in after}


def test_nothing_left() -> None:
    stored, _, _ = applied(["a", "b"], [])
    assert applied([], stored) == ([], 0, 0)


def test_another_time_gives_kept_chunks_new_ids() -> None:
    stored, _, _ = applied(["a", "a", "b"], [])
    after, new, written = applied(["a", "a", "b"], stored, time=1000)
    assert (texts_in(after), new, written) == (["a", "a", "b"], 0, 3)
    assert not {chunk.id for chunk, _ in stored} & {chunk.id for chunk, _ in after}
    assert applied(["a", "a", "b"], [], time=1000)[0] == after


def test_other_metadata_is_a_change() -> None:
    ((chunk, _),) = applied(["a"], [])[0]
    other = StoredChunk(chunk.id, chunk.time, chunk.chunk, chunk.content_hash, False)
    (kept,) = diff_chunks(KEY, 0, ["a"], [other]).kept
    assert kept.changed


def known(*texts: str) -> list[StoredChunk]:
    """Return chunks that were stored for these texts, with the texts."""
    new = diff_chunks(KEY, 0, texts, []).new
    return [StoredChunk(one.id, 0, one.chunk, one.content_hash, True, one.text) for one in new]


def test_other_white_space_is_written_and_keeps_the_vector() -> None:
    stored = known("one two\nthree", "four", "five  six")
    diff = diff_chunks(KEY, 0, ["one\ttwo three ", "four", "fivesix"], stored)
    wrapped, same = diff.kept
    assert (wrapped.id, wrapped.text) == (stored[0].id, "one\ttwo three ")
    assert wrapped.content_hash == content_hash("one\ttwo three ")
    assert (wrapped.changed, same.changed) == (True, False)
    assert [chunk.text for chunk in diff.new] == ["fivesix"]
    assert diff.stale == [stored[2]]


def test_an_equal_text_comes_before_one_of_other_white_space() -> None:
    stored = known("a b", "a  b")
    diff = diff_chunks(KEY, 0, ["a  b", "a b", "a\nb"], stored)
    assert [kept.text for kept in diff.kept] == [None, None]
    assert [chunk.text for chunk in diff.new] == ["a\nb"]


def test_a_text_that_is_not_known_is_not_compared_by_its_words() -> None:
    stored = [replace(chunk, text=None) for chunk in known("a b")]
    assert [chunk.text for chunk in diff_chunks(KEY, 0, ["a  b"], stored).new] == ["a  b"]


def test_no_new_id_is_that_of_a_chunk_whose_white_space_changed() -> None:
    (first,) = known("a b")
    (kept,) = diff_chunks(KEY, 0, ["a  b"], [first]).kept
    rewritten = replace(first, content_hash=kept.content_hash or b"", text=kept.text)
    diff = diff_chunks(KEY, 1000, ["a b", "a  b"], [rewritten])
    ids = [chunk.id for chunk in (*diff.new, *diff.kept)]
    assert len(set(ids)) == len(ids) == 2


@pytest.mark.parametrize("seed", range(30))
def test_any_history_ends_with_the_texts_and_pays_only_for_what_is_new(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same histories in every run
    stored: Stored = []
    before: list[str] = []
    for step in range(25):
        texts = chance.choices("abcd", k=chance.randint(0, 7))
        stored, new, _ = applied(texts, stored, time=chance.choice([0, 0, step]))
        assert texts_in(stored) == texts
        assert len({chunk.id for chunk, _ in stored}) == len(texts)
        assert [chunk.chunk for chunk, _ in sorted(stored, key=lambda pair: pair[0].chunk)] == list(
            range(len(texts))
        )
        assert new == sum((Counter(texts) - Counter(before)).values())
        before = texts
