"""Two versions of the program side by side: the newer one brings one migration more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from subject import Subject

import vectorizer
from vectorizer import errors, pgvectorizer
from vectorizer.queries import migrations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., subprocess.CompletedProcess[str]]

PACKAGE = Path(vectorizer.__file__).parent
LATEST = migrations()[-1].number
NEXT = LATEST + 1
TABLE = """
create table post (id int primary key, body text);
insert into post select n, 'text ' || n from generate_series(1, 10) n
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program of the next release, which knows one migration more."""
    folder = tmp_path_factory.mktemp("newer")
    shutil.copytree(PACKAGE, folder / "vectorizer", ignore=shutil.ignore_patterns("__pycache__"))
    within = folder / "vectorizer" / "sql"
    if not within.exists():  # a checkout has it beside the package
        shutil.copytree(PACKAGE.parent / "sql", folder / "sql")
        within = folder / "sql"
    migration = within / "migrations" / f"{NEXT:04}_next.sql"
    migration.write_text("create table {schema}.next_release (n integer);\n")
    return folder


def runner(url: str, folder: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vectorizer.cli", *arguments, "--url", url],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def ours(vectorizer_url: str) -> Run:
    """Run this version of the program."""
    return runner(vectorizer_url, PACKAGE.parent)


@pytest.fixture
def next_release(vectorizer_url: str, newer: Path) -> Run:
    """Run the next version of the program."""
    return runner(vectorizer_url, newer)


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    """A table of ten rows, installed by this version, nothing embedded."""
    with Subject(vectorizer_url, batch_size=4) as subject:
        subject.db.execute(TABLE)
        subject.vectorizer.install()
        yield subject


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line


def test_an_older_schema_is_named_with_its_remedy(post: Subject, next_release: Run) -> None:
    refused(next_release("run"), f"is at version {LATEST}, this program needs {NEXT}; ")
    refused(next_release("status"), f"is at version {LATEST}")
    assert post.embedded() == {}
    assert next_release("migrate").returncode == 0
    done = next_release("run")
    assert done.returncode == 0, done.stderr
    assert len(post.embedded()) == 10
    assert next_release("migrate").stdout == "The schema is up to date.\n"


def test_migrate_is_named_as_the_remedy(post: Subject, next_release: Run) -> None:
    del post
    refused(next_release("run"), "vectorizer migrate")


def test_install_brings_an_older_schema_up_to_date(post: Subject, next_release: Run) -> None:
    post.sql("create table other (id int primary key, body text)")
    done = next_release("install", "other", "--chunk-column", "body", "--embedder", "fake")
    assert done.returncode == 0, done.stderr
    assert post.value("select max(number) from vectorizer.migration") == NEXT
    assert next_release("run").returncode == 0
    assert len(post.embedded()) == 10


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "post"),
        ("install", "post", "--chunk-column", "body", "--embedder", "fake"),
        ("migrate",),
        ("status",),
        ("verify",),
        ("pause", "post"),
        ("uninstall", "post"),
        ("search", "post", "text"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_newer_schema_is_refused(
    post: Subject, ours: Run, next_release: Run, arguments: tuple[str, ...]
) -> None:
    assert next_release("migrate").returncode == 0
    refused(
        ours(*arguments),
        f"is at version {NEXT}, newer than the {LATEST} this program knows",
        "upgrade pg-vectorizer",
    )
    assert post.embedded() == {}
    assert post.sql("select name, paused_at from vectorizer.vectorizer") == [("post", None)]


def test_a_newer_schema_is_refused_by_the_library(
    post: Subject, vectorizer_url: str, next_release: Run
) -> None:
    assert next_release("migrate").returncode == 0
    for refusing in (post.vectorizer.run, post.vectorizer.install, post.vectorizer.verify):
        with pytest.raises(errors.SchemaVersionError, match="upgrade pg-vectorizer"):
            refusing()
    with (
        pgvectorizer.Vectorize(vectorizer_url, "post") as callback,
        pytest.raises(errors.SchemaVersionError, match="upgrade pg-vectorizer"),
    ):
        callback.process(lambda *_: None)


def test_a_worker_that_runs_during_the_upgrade_harms_nothing(
    post: Subject, next_release: Run
) -> None:
    assert post.vectorizer.process() == 4
    assert next_release("migrate").returncode == 0
    # It goes on, or refuses; either way nothing is lost and nothing is there twice.
    try:
        post.vectorizer.process()
    except errors.SchemaVersionError as error:
        assert "upgrade pg-vectorizer" in str(error)  # noqa: PT017 - both ends are right
    post.sql("update post set body = 'changed' where id = 1")
    assert next_release("run").returncode == 0
    verified = next_release("verify")
    assert verified.returncode == 0, verified.stdout
    post.agree()
