"""From a real older release, with its schema at version 4, to this one (fault 22).

data/release_at_4.tar.gz is that release: the folders vectorizer (without the demo's posts) and
sql of commit 9c6607f.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from subject import Subject
from test_versions import LATEST, refused, runner

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Run = Callable[..., subprocess.CompletedProcess[str]]

SHAPES = {
    "plain": "create table post (id int primary key, body text, title text, at timestamptz)",
    "partitioned": "create table post (id int primary key, body text, title text, at timestamptz)"
    " partition by range (id);"
    "create table low partition of post for values from (0) to (20);"
    "create table high partition of post default",
}
ROWS = (
    "insert into post select n, 'text ' || n, 'title', timestamptz '2024-01-01+00' + n * interval"
    " '1 day' from generate_series(1, 30) n"
)
INSTALL = (
    "install", "post", "--chunk-column", "body", "--embedder", "fake", "--dimensions", "16",
    "--metadata", "title", "--time-column", "at", "--partition-interval", "1w",
    "--where", "coalesce(title, '') <> 'hidden'",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program of the older release."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(Path(__file__).parent / "data" / "release_at_4.tar.gz") as archive:
        # Patch releases of Python before 2023 know no filters, later ones warn without.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # type: ignore[assignment]
        archive.extractall(folder)  # noqa: S202 - it is our own
    return folder


@pytest.fixture
def older(vectorizer_url: str, folder: Path) -> Run:
    """Run the older release."""
    return runner(vectorizer_url, folder)


@pytest.fixture
def ours(vectorizer_url: str) -> Run:
    """Run this release."""
    return runner(vectorizer_url, Path(__file__).parents[2])


@pytest.fixture(params=SHAPES)
def post(request: pytest.FixtureRequest, vectorizer_url: str, older: Run) -> Iterator[Subject]:
    """Thirty rows, attached and embedded by the older release."""
    with Subject(
        vectorizer_url, visible="at is not null and coalesce(title, '') <> 'hidden'", batch_size=5
    ) as subject:
        subject.script(f"{SHAPES[request.param]}; {ROWS}")
        done(older(*INSTALL))
        done(older("run"))
        assert subject.value("select max(number) from vectorizer.migration") == 4
        assert subject.value("select count(*) from post_embedding") == 30
        yield subject


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result.stdout


def change(post: Subject) -> None:
    """Change what the older release's triggers, or this one's, shall capture."""
    post.sql("update post set body = body || ' changed' where id in (1, 2)")
    post.sql("update post set title = 'hidden' where id = 3")
    post.sql("delete from post where id = 4")
    post.sql("insert into post values (100, 'new', 'title', '2024-03-01+00')")


def test_an_upgrade_goes_on_where_the_older_release_was(post: Subject, ours: Run) -> None:
    change(post)
    # A batch that the older release held when it was stopped.
    post.sql(
        "insert into vectorizer.lease values (gen_random_uuid(), 1, 'older', "
        """'[{"source_id": 5}, {"source_id": 6}]', now(), now() - interval '1 second')"""
    )
    post.sql(
        "update vectorizer.post_row set lease = (select token from vectorizer.lease)"
        " where source_id in (5, 6)"
    )
    refused(ours("run"), f"is at version 4, this program needs {LATEST}; ", "vectorizer migrate")
    done(ours("migrate"))
    assert done(ours("run")) == "post: 7 rows; chunks: 3 embedded, 2 kept, 4 deleted\n"
    done(ours("verify"))
    post.agree()
    assert "warning" not in done(ours("status"))
    assert done(ours("search", "post", "text 7"))
    post.sql("update post set body = body || '!' where id = 7")
    assert "1 rows; chunks: 1 embedded" in done(ours("run"))
    # What makes everything anew finds everything as it was.
    done(ours("suspend", "post"))
    post.sql("alter table post rename id to number")
    done(ours("resume", "post"))
    assert "0 embedded" in done(ours("run"))
    done(ours("verify"))
    assert not post.sql("select from vectorizer.status where warnings <> '{}'")
    done(ours("uninstall", "post", "--drop-embeddings"))


def test_an_upgraded_vectorizer_is_installed_already(post: Subject, ours: Run) -> None:
    # Install brings the schema up to date itself.
    assert "is installed on post" in done(ours(*INSTALL))
    assert post.value("select max(number) from vectorizer.migration") == LATEST
    assert "0 rows" in done(ours("run"))
    done(ours("uninstall", "post"))
    done(ours(*INSTALL))
    assert "0 embedded" in done(ours("run"))
    post.agree()


def test_the_older_release_refuses_the_newer_schema(post: Subject, older: Run, ours: Run) -> None:
    done(ours("migrate"))
    change(post)
    for arguments in (("run",), ("status",), INSTALL, ("pause", "post")):
        refused(older(*arguments), f"is at version {LATEST}, newer than the 4 this program knows")
    done(ours("run"))
    post.agree()
