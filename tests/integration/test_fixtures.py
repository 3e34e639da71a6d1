from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from vectorizer.testing.pytest_plugin import database

if TYPE_CHECKING:
    from pathlib import Path

SUITE = """
import time, psycopg

def test_server(vectorizer_url):
    with psycopg.connect(vectorizer_url) as connection:
        name, = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    with open("servers", "a") as servers:
        print(name, file=servers)
    deadline = time.monotonic() + 60
    while len(open("servers").readlines()) < {workers} and time.monotonic() < deadline:
        time.sleep(0.01)
"""


def names(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}


def server_of(url: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
        assert row is not None
        return str(row[0])


def test_a_database_has_pgvector_and_no_tables(vectorizer_url: str) -> None:
    with psycopg.connect(vectorizer_url) as connection:
        assert connection.execute("SELECT '[3,4]'::vector <-> '[0,0]'").fetchone() == (5,)
        tables = "SELECT relname FROM pg_stat_user_tables"
        assert connection.execute(tables).fetchall() == []


def test_two_databases_do_not_see_each_other(
    vectorizer_server: str, vectorizer_template: str, vectorizer_url: str
) -> None:
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute("CREATE TABLE mine ()")
    with (
        database(vectorizer_server, vectorizer_template) as other,
        psycopg.connect(other) as connection,
        pytest.raises(psycopg.errors.UndefinedTable),
    ):
        connection.execute("SELECT FROM mine")


def test_a_database_is_dropped_under_its_open_connections(
    vectorizer_server: str, vectorizer_template: str
) -> None:
    with database(vectorizer_server, vectorizer_template) as url:
        connection = psycopg.connect(url)
        name = connection.info.dbname
        assert name in names(vectorizer_server)
    assert name not in names(vectorizer_server)
    connection.close()


def run_suite(folder: Path, *options: str, workers: int = 1) -> list[str]:
    """Run a test as somebody would who has only installed the package."""
    (folder / "test_suite.py").write_text(SUITE.format(workers=workers))
    pytest_ = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir=.", "--basetemp=temp"]
    done = subprocess.run(
        [*pytest_, "-p", "no:cacheprovider", "-p", "no:asyncio", *options, "test_suite.py"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "servers").read_text().split()


def test_all_workers_share_one_server_and_leave_nothing(tmp_path: Path) -> None:
    first, second = run_suite(tmp_path, "-n2", "--dist=each", workers=2)
    assert first == second
    assert list(tmp_path.glob("temp/**/PG_VERSION")) == []


def test_another_server(
    tmp_path: Path, vectorizer_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTORIZER_TEST_URL", vectorizer_server)
    assert run_suite(tmp_path) == [server_of(vectorizer_server)]
