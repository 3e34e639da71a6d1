from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise

import pytest

from vectorizer import chunking
from vectorizer.chunking import Chunker
from vectorizer.errors import ConfigurationError
from vectorizer.tokens import tiktoken_cutter

WORDS = [
    "cats",
    "purr,",
    "because",
    "Ünïcode",
    "日本語",
    "naïve",
    "e\u0301\u0301",
    "👩‍👩‍👧",
    "end.",
    "Why?",
]
GAPS = [
    " ",
    " ",
    " ",
    " ",
    "\n",
    "\r\n",
    "\n\n",
    "\r\n\r\n",
    "\t",
    "\u00a0",
    "\u2003",
    "\x1c",
    "\x0c",
]
BLOCKS = [
    "\n# Heading\n",
    "\n\nTitle\n=====\n\n",
    "\n```\n# code\n",
    "\n~~~\n",
    "\n-----\n",
    "x" * 700,
]


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same texts in every run


def prose(chance: random.Random, length: int) -> str:
    """Paragraphs of about 300 characters without headings."""
    text = ""
    while len(text) < length:
        text += " ".join(chance.choices(WORDS[:6], k=chance.randint(1, 90))) + ".\n\n"
    return text


def anything(chance: random.Random) -> str:
    parts = [chance.choice(WORDS) + chance.choice(GAPS) for _ in range(chance.randint(0, 900))]
    for _ in range(chance.randint(0, 20)):
        parts.insert(chance.randint(0, len(parts)), chance.choice(BLOCKS))
    return "".join(parts)


def without_space(text: str) -> str:
    return "".join(text.split())


class Counting:
    """A splitter that remembers how long its texts were."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def chunks(self, text: str) -> list[str]:
        self.lengths.append(len(text))
        return [text]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    splitter = Counting()
    monkeypatch.setattr(chunking, "_splitter", lambda *_: splitter)
    return splitter


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("sizes", [(500, 1000), (20, 60), (1, 1), (100, 100), (3, 7)])
def test_chunks_are_trimmed_within_size_and_lose_nothing(seed: int, sizes: tuple[int, int]) -> None:
    text = anything(seeded(seed))
    chunks = Chunker(*sizes).split(text)
    assert all(chunk and chunk == chunk.strip() and len(chunk) <= sizes[1] for chunk in chunks)
    assert without_space("".join(chunks)) == without_space(text)
    assert Chunker(*sizes).split(text) == chunks


def test_overlap_repeats_the_end_of_the_chunk_before() -> None:
    sentences = [f"This is sentence number {n} of the text." for n in range(300)]
    chunks = Chunker(500, 1000, 100).split(" ".join(sentences))
    assert all(any(sentence in chunk for chunk in chunks) for sentence in sentences)
    for before, after in pairwise(chunks):
        assert len(after) <= 1000
        assert sentences[0] not in after
        repeated = max(n for n in range(len(after)) if before.endswith(after[:n]))
        assert 30 < repeated <= 100


@pytest.mark.parametrize("seed", range(30))
def test_overlap_respects_the_size(seed: int) -> None:
    chunks = Chunker(20, 60, 19).split(anything(seeded(seed)))
    assert all(chunk and chunk == chunk.strip() and len(chunk) <= 60 for chunk in chunks)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t\r\n\u00a0\u2003", " " * 5000])
def test_a_blank_text_has_no_chunks(text: str) -> None:
    assert Chunker().split(text) == []


def test_a_short_text_is_one_chunk() -> None:
    assert Chunker().split("  Cats purr.\r\n") == ["Cats purr."]


@pytest.mark.parametrize(
    "text", ["x" * 40_000, "e" + "\u0301" * 40_000, "word " * 8000, "#" * 9000]
)
def test_very_long_lines(text: str) -> None:
    chunks = Chunker().split(text)
    assert max(map(len, chunks)) <= 1000
    assert without_space("".join(chunks)) == without_space(text)


BODY = "Cats purr at any hour of the day, and nobody has ever found out why they do so. " * 2


@pytest.mark.parametrize(
    "heading",
    [
        "# Cats\n",
        "   ###### Cats\n",
        "#\tCats\n",
        "Cats\n====\n",
        "Cats\r\n----\r\n",
        "Cats\n~~~~~~\n",
        "====\nCats\n====\n",
        "####\nCats\n####\n",
        "# Cats\n------\n",
        "Cats: why?\n``````````  \n",
    ],
)
def test_a_heading_begins_a_chunk(heading: str) -> None:
    text = f"{BODY}\n\n{heading}\n{BODY}"
    assert Chunker().split(text) == [BODY.strip(), f"{heading}\n{BODY}".strip()]


@pytest.mark.parametrize(
    "line",
    [
        "#hashtag\n",
        "####### seven\n",
        "    # indented code\n",
        "Longer than the rule\n-----\n",
        "Cats\n==\n",
        "Cats\n=-=-=-\n",
        "\n-----\n",
        "    Cats\n----------\n",
        "```\n# a comment\n```\n",
        "```\n``` not the end\n# a comment\n```\n",
        "~~~~ sh\n# a comment\n```\n# another\n~~~~~\n",
        "=====  =====\n",
    ],
)
def test_other_lines_do_not(line: str) -> None:
    assert len(Chunker().split(f"{BODY}\n\n{line}\n{BODY}")) == 1


def test_a_framed_heading_with_a_mark_is_cut_once() -> None:
    text = f"{BODY}\n\n====\n# it\n====\n{BODY}"
    assert Chunker().split(text) == [f"{BODY}\n\n====", f"# it\n====\n{BODY}".strip()]
    assert Chunker(4, 4).split("====\n# it\n====") == ["====", "# it", "===="]


def test_headings_count_again_after_fenced_code() -> None:
    text = f"```python\n# code\n{BODY}\n```\n{BODY}\n# Cats\n{BODY}"
    assert [chunk[:6] for chunk in Chunker().split(text)] == ["```pyt", "# Cats"]


def test_a_heading_below_a_heading_stays_with_it() -> None:
    chunks = Chunker().split(f"{BODY}\n# Cats\n\n## Purring\n\n{BODY}\n# Sources\n")
    assert chunks == [BODY.strip(), f"# Cats\n\n## Purring\n\n{BODY}\n# Sources"]


def sections(chance: random.Random) -> list[str]:
    return [
        f"Section {n}\n{'=' * 10}\n\n{prose(chance, chance.randint(200, 4000))}" for n in range(12)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_an_edit_stays_in_its_section(seed: int) -> None:
    chance = seeded(seed)
    before = sections(chance)
    after = before.copy()
    edited = chance.randrange(len(before))
    after[edited] += prose(chance, chance.randint(1, 2000))
    unchanged = [
        c for n, section in enumerate(before) if n != edited for c in Chunker().split(section)
    ]
    chunks = Chunker().split("".join(after))
    assert [chunk for chunk in chunks if chunk in unchanged] == unchanged
    assert set(chunks) - set(unchanged) <= set(Chunker().split(after[edited]))


@pytest.mark.parametrize("seed", range(5))
def test_an_edit_of_a_long_text_without_sections_stays_local_too(seed: int) -> None:
    text = prose(seeded(seed), 300_000)
    before = Chunker().split(text)
    after = Chunker().split(prose(seeded(-1), 5000) + text)
    half = len(before) // 2
    assert after[-half:] == before[-half:]


@pytest.mark.parametrize("text", [prose(seeded(0), 2_000_000), "x" * 2_000_000, "x \n" * 700_000])
def test_a_long_text_goes_to_the_splitter_in_pieces(text: str, counting: Counting) -> None:
    Chunker().split(text)
    assert sum(counting.lengths) == len(text)
    assert max(counting.lengths) <= 16_000
    assert len(counting.lengths) <= len(text) / 8000 + 1


@pytest.mark.parametrize("text", ["#\n" * 1_000_000, "a\n===\n" * 300_000, "```\n" * 500_000])
def test_many_headings_make_a_bounded_number_of_calls(text: str, counting: Counting) -> None:
    Chunker().split(text)
    assert sum(counting.lengths) == len(text)
    assert len(counting.lengths) <= len(text) / 100 + 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 1000), "min_chars must be a whole number of 1 or more, not 0"),
        ((-5, 1000), "min_chars must be a whole number of 1 or more, not -5"),
        ((500, 499), "max_chars must be a whole number of 500 or more, not 499"),
        ((500, 1000, -1), "overlap must be a whole number of 0 to 499, not -1"),
        ((500, 1000, 500), "overlap must be a whole number of 0 to 499, not 500"),
        ((500.0, 1000), "min_chars must be a whole number of 1 or more, not 500.0"),
        ((True, 1000), "min_chars must be a whole number of 1 or more, not True"),
        ((500, "1000"), "max_chars must be a whole number of 500 or more, not '1000'"),
        ((500, 1000, None), "overlap must be a whole number of 0 to 499, not None"),
    ],
)
def test_nonsensical_sizes_are_refused(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Chunker(*sizes)
    assert str(error.value) == message


def test_the_splitter_is_made_once_per_configuration() -> None:
    assert chunking._splitter(500, 1000, 0) is chunking._splitter(500, 1000, 0)
    assert chunking._splitter(500, 1000, 0) is not chunking._splitter(500, 1000, 50)


def test_importing_does_not_import_the_splitter() -> None:
    program = (
        "import sys; from vectorizer.chunking import Chunker; Chunker(); "
        "sys.exit('semantic_text_splitter' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_markdown_keeps_a_code_block_together_where_text_does_not() -> None:
    functions = "\n\n".join(f"def f{n}():\n    return {n}" for n in range(10))
    code = f"```python\n{functions}\n```"
    text = f"{BODY * 2}\n\n{code}\n\n{BODY * 2}\n"
    chunks = Chunker(100, 350, splitter="markdown").split(text)
    assert code in chunks
    assert code not in Chunker(100, 350).split(text)
    assert without_space("".join(chunks)) == without_space(text)


def test_markdown_is_cut_at_its_headings() -> None:
    text = f"# Cats\n{BODY}\n## Dogs\n{BODY}"
    assert [c[:6] for c in Chunker(splitter="markdown").split(text)] == ["# Cats", "## Dog"]


@pytest.mark.parametrize("splitter", ["text", "markdown", "html"])
def test_sizes_in_tokens(splitter: str) -> None:
    text = prose(seeded(3), 40_000)
    chunks = Chunker(100, 200, unit="tokens", splitter=splitter).split(text)
    assert all(len(tiktoken_cutter(chunk, 200)) == 1 for chunk in chunks)
    assert max(map(len, chunks)) > 400  # characters, more than 200
    assert without_space("".join(chunks)) == without_space(text)
    assert Chunker(100, 200, unit="tokens", splitter=splitter).split("Short.") == ["Short."]


def test_no_splitting() -> None:
    text = prose(seeded(3), 40_000)
    assert Chunker(splitter="none").split(f"  {text}") == [text.strip()]
    assert Chunker(splitter="none").split(" \n") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splitter": "sgml"}, "splitter must be one of text, markdown, html, none, not 'sgml'"),
        ({"unit": "words"}, "chunk_unit must be one of characters, tokens, not 'words'"),
    ],
)
def test_unknown_kinds_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Chunker(**options)  # type: ignore[arg-type]
