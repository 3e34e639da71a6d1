"""deploy/lambda/handler.py, called as AWS Lambda calls it."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from vectorizer import Vectorizer
from vectorizer.errors import ConfigurationError, VectorizerPaused
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLER = Path(__file__).parents[2] / "deploy" / "lambda" / "handler.py"


class Context:
    """Time runs out after so many looks at it."""

    def __init__(self, looks: int = 1000) -> None:
        self.looks = looks

    def get_remaining_time_in_millis(self) -> int:
        self.looks -= 1
        return 60_000 if self.looks >= 0 else 14_000


@pytest.fixture
def handler() -> Any:
    spec = spec_from_file_location("lambda_handler", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handler


@pytest.fixture
def db(vectorizer_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """Two tables of 300 and 10 rows, each with a vectorizer."""
    monkeypatch.setenv("VECTORIZER_URL", vectorizer_url)
    monkeypatch.setenv("VECTORIZER_NAMES", "large, small")
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        for table, rows in (("large", 300), ("small", 10)):
            connection.execute(
                f"create table {table} (id int primary key, body text);"
                f"insert into {table} select n, 'text ' || n from generate_series(1, {rows}) n"
            )
            with Vectorizer(
                vectorizer_url, table, embedder=FakeEmbedder(), chunk_column="body"
            ) as vectorizer:
                vectorizer.install()
        yield connection


def embedded(db: psycopg.Connection[Any], table: str) -> int:
    ((count,),) = db.execute(f"select count(*) from {table}_embedding").fetchall()
    return int(count)


def test_it_drains_all_that_its_environment_names(handler: Any, db: Any) -> None:
    assert handler({}, Context()) == {"large": 300, "small": 10}
    assert (embedded(db, "large"), embedded(db, "small")) == (300, 10)
    assert handler({}, Context()) == {"large": 0, "small": 0}


def test_the_event_may_name_fewer(handler: Any, db: Any) -> None:
    assert handler({"names": ["small"]}, Context()) == {"small": 10}
    assert embedded(db, "large") == 0


def test_one_whose_model_is_not_there_holds_up_no_other(handler: Any, db: Any) -> None:
    db.execute(
        "update vectorizer.vectorizer set definition = jsonb_set(definition,"
        " '{embedder,provider}', '\"absent:Model\"') where name = 'large'"
    )
    with pytest.raises(ConfigurationError, match="absent"):
        handler({}, Context())
    assert embedded(db, "small") == 10


def test_it_stops_in_time_and_goes_on_with_the_next_call(handler: Any, db: Any) -> None:
    assert handler({}, Context(looks=1)) == {"large": 200, "small": 10}
    assert handler({}, Context()) == {"large": 100, "small": 0}
    assert embedded(db, "large") == 300


def test_one_that_is_paused_holds_up_no_other_and_is_told(handler: Any, db: Any) -> None:
    db.execute("select vectorizer.pause('large')")
    with pytest.raises(VectorizerPaused, match="large"):
        handler({}, Context())
    assert embedded(db, "small") == 10
