"""`vectorizer doctor` finds what is wrong; and what else an operator looks at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from vectorizer import Vectorizer
from vectorizer.cli import main
from vectorizer.testing import FakeEmbedder

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vectorizer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return call


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute("create table post (id int primary key, body text)")
        connection.execute("insert into post select n, 'text ' || n from generate_series(1, 9) n")
        with Vectorizer(
            vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body"
        ) as vectorizer:
            vectorizer.install()
            vectorizer.run()
        yield connection


def examine(run: Run, url: str, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, out = run("doctor", "--json", "--url", url, *options)
    return code, {finding["check"]: finding for finding in json.loads(out)}


@pytest.mark.usefixtures("db")
def test_all_is_well(run: Run, vectorizer_url: str) -> None:
    code, found = examine(run, vectorizer_url)
    bad = [finding for finding in found.values() if finding["level"] == "fail"]
    assert (code, bad) == (0, [])
    assert {
        "configuration", "connection", "server", "extension", "connections", "autovacuum",
        "schema", "grants", "transactions", "post: grants", "post: triggers", "post: vacuum",
        "post: state", "post: lag", "post: model",
    } <= set(found)  # fmt: skip
    assert found["post: model"]["text"].startswith("fake answers in")
    code, out = run("doctor", "--url", vectorizer_url)
    assert code == 0
    assert "ok    post: triggers: every change" in out


@pytest.mark.parametrize(
    ("damage", "check", "words"),
    [
        ("alter table post disable trigger user", "post: triggers", "not captured"),
        ("alter table vectorizer.post_row set (autovacuum_enabled = off)", "post: vacuum",
         "post_row"),
        ("select vectorizer.pause('post', 'the reason')", "post: state", "the reason"),
        ("""update vectorizer.vectorizer set definition = jsonb_set(definition,
         '{embedder,provider}', '"gone:Model"')""", "post: model", "gone"),
        ("insert into vectorizer.migration values (9999, 'later')", "schema", "newer"),
        ("drop schema vectorizer cascade", "schema", "no vectorizer is installed"),
    ],
)  # fmt: skip
def test_what_is_broken_fails(
    run: Run, vectorizer_url: str, db: psycopg.Connection, damage: str, check: str, words: str
) -> None:
    db.execute(damage)
    code, found = examine(run, vectorizer_url)
    assert code == 1
    assert found[check]["level"] == "fail"
    assert words in found[check]["text"]
    assert found[check]["remedy"]


@pytest.mark.parametrize(
    ("damage", "check", "words"),
    [
        ("update vectorizer.post_row set dead = true where source_id = 1", "post: dead letters",
         "1 rows"),
        ("insert into vectorizer.post_log (at, source_id) values (now() - interval '5 min', 1)",
         "post: lag", "1 changes wait"),
        ("""insert into vectorizer.lease
         select gen_random_uuid(), 1, 'w', '[]', now(), now() - interval '1 hour'""", "leases",
         "1 batches"),
    ],
)  # fmt: skip
def test_what_may_pass_is_a_warning(
    run: Run, vectorizer_url: str, db: psycopg.Connection, damage: str, check: str, words: str
) -> None:
    db.execute(damage)
    code, found = examine(run, vectorizer_url, "--no-models")
    assert (code, found[check]["level"]) == (0, "warn")
    assert words in found[check]["text"]
    assert "post: model" not in found


def test_a_role_that_lacks_rights_and_sees_no_rows(
    run: Run, vectorizer_url: str, db: psycopg.Connection
) -> None:
    name = f"worker_{db.info.dbname}"
    db.execute(f"create role {name} login")
    try:
        db.execute(f"grant usage on schema vectorizer to {name}")
        db.execute(f"grant select on all tables in schema vectorizer, public to {name}")
        db.execute("alter table post enable row level security")
        code, found = examine(run, _as(vectorizer_url, name), "--no-models")
        assert code == 1
        assert "INSERT on lease" in found["grants"]["text"]
        assert "DELETE on post_log" in found["post: grants"]["text"]
        assert found["post: security"]["level"] == "fail"
    finally:
        db.execute(f"drop owned by {name}")
        db.execute(f"drop role {name}")


def test_a_role_that_was_granted_a_workers_work_lacks_nothing(
    run: Run, vectorizer_url: str, db: psycopg.Connection
) -> None:
    name = f"worker_{db.info.dbname}"
    db.execute(f"create role {name} login")
    try:
        assert run("grant", "worker", name, "--url", vectorizer_url)[0] == 0
        code, found = examine(run, _as(vectorizer_url, name), "--no-models")
        assert (code, found["grants"]["text"]) == (0, "this role may do a worker's work")
    finally:
        db.execute(f"drop owned by {name}")
        db.execute(f"drop role {name}")


def test_what_is_disabled_is_named_with_its_remedy(
    run: Run, vectorizer_url: str, db: psycopg.Connection
) -> None:
    db.execute("alter table post disable trigger user")
    db.execute("alter table vectorizer.post_row set (autovacuum_enabled = off)")
    _, found = examine(run, vectorizer_url, "--no-models")
    for check in ("post: triggers", "post: vacuum"):
        db.execute(found[check]["remedy"].partition("; then")[0].encode())
    code, found = examine(run, vectorizer_url, "--no-models")
    assert (code, {found[check]["level"] for check in ("post: triggers", "post: vacuum")}) == (
        0, {"ok"},
    )  # fmt: skip


def _as(url: str, role: str) -> str:
    from psycopg.conninfo import make_conninfo  # noqa: PLC0415

    return make_conninfo(url, user=role)


def test_a_server_that_is_not_there(run: Run) -> None:
    code, found = examine(run, "postgresql://127.0.0.1:1/nothing")
    assert (code, found["connection"]["level"]) == (1, "fail")


def test_a_run_ends_at_its_limits(run: Run, vectorizer_url: str, db: psycopg.Connection) -> None:
    db.execute("update post set body = 'other ' || id")
    limits = ("--max-rows", "4", "--batch-size", "2")
    code, out = run("run", *limits, "--url", vectorizer_url, "--json")
    assert (code, json.loads(out)["post"]["rows"]) == (0, 4)
    code, out = run("run", "--max-seconds", "0", "--url", vectorizer_url, "--json")
    assert (code, json.loads(out)["post"]["rows"]) == (0, 0)
    code, out = run("--quiet", "run", "--url", vectorizer_url)
    assert (code, out) == (0, "")
    others = "select count(*) from post_embedding where contents like 'other%'"
    assert db.execute(others).fetchone() == (9,)


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_status_can_be_watched(vectorizer_url: str, form: list[str]) -> None:
    program = [sys.executable, "-m", "vectorizer.cli", "status", "--watch", "--every", "0.1"]
    with subprocess.Popen(
        [*program, *form, "--url", vectorizer_url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    if form:
        assert json.loads(lines[1])["name"] == "post"
    else:
        assert " post live: 0 waiting" in lines[1]
