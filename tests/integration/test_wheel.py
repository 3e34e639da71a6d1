"""The built wheel, installed on its own, away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import psycopg
import pytest

REPOSITORY = Path(__file__).parents[2]
VERSION = (
    (REPOSITORY / "pyproject.toml").read_text().partition('\nversion = "')[2].partition('"')[0]
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by hatchling alone: nothing is fetched."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel's contents, as pip lays them out."""
    folder = tmp_path_factory.mktemp("site") / "packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--target", folder, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_it_holds_every_file_that_is_read_at_run_time(wheel: Path) -> None:
    assert wheel.name == f"pg_vectorizer-{VERSION}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("sql", "vectorizer/sql"), ("vectorizer", "vectorizer")):
        files = [file for file in (REPOSITORY / folder).rglob("*") if file.is_file()]
        wanted = [file for file in files if file.suffix in {".py", ".sql", ".md"}]
        missing = {f"{inside}/{file.relative_to(REPOSITORY / folder)}" for file in wanted} - names
        assert missing == set()
    assert "vectorizer/demo/posts/001-a-year-of-making-postgres-faster.md" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", ".ci/")) for name in names)


def test_it_works_away_from_the_repository(
    installed: Path, vectorizer_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute("create table blog (id int primary key, contents text)")
        connection.execute("insert into blog values (1, 'a cat sleeps'), (2, 'an index')")
    environment = {
        **os.environ, "PYTHONPATH": str(installed), "VECTORIZER_URL": vectorizer_url,
    }  # fmt: skip

    def vectorizer(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, installed / "bin" / "vectorizer", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert vectorizer("--version") == f"vectorizer {VERSION}\n"
    options = ("--chunk-column", "contents", "--embedder", "fake", "--dimensions", "16")
    assert "is installed on blog" in vectorizer("install", "blog", *options)
    assert vectorizer("run") == "blog: 2 rows; chunks: 2 embedded, 0 kept, 0 deleted\n"
    assert "a cat sleeps" in vectorizer("search", "blog", "cat", "--limit", "1")
    found = subprocess.run(
        [sys.executable, "-c", "import vectorizer; print(vectorizer.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(found.stdout.strip()).is_relative_to(installed)
