"""What a scrape of a worker tells, its health, and its logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import SECONDS, until
from working import working

from vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli import _logs
from vectorizer.errors import ConfigurationError
from vectorizer.events import (
    BatchFailed,
    BatchFinished,
    LeaseWasLost,
    RequestFinished,
    RequestRetried,
    emit,
    recorded,
)
from vectorizer.metrics import Metrics
from vectorizer.testing import FakeEmbedder
from vectorizer.worker import Worker, serving_http


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name, *(v for k, v in sorted(sample.labels.items()) if k != "generation")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def served(url: str) -> Iterator[tuple[Worker, str]]:
    metrics = Metrics()
    worker = Worker(url, observer=metrics)
    with working(worker, metrics) as running:
        yield worker, f"http://127.0.0.1:{running.port}"


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urlopen(Request(url, headers=headers), timeout=SECONDS) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_scrape_tells_what_was_done_and_what_waits(vectorizer_url: str) -> None:
    with psycopg.connect(vectorizer_url, autocommit=True) as db:
        db.execute("create table post (id int primary key, body text)")
        db.execute("insert into post select n, 'text ' || n from generate_series(1, 3) n")
        with Vectorizer(
            vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body"
        ) as vectorizer:
            vectorizer.install()
        with served(vectorizer_url) as (worker, address):

            def done(rows: int) -> bool:
                found = db.execute("select count(*) from post_embedding").fetchone()
                return found == (rows,) and not worker.in_flight

            until(lambda: done(3))
            db.execute("insert into post values (4, 'text')")
            until(lambda: done(4))
            status, text = get(f"{address}/metrics")
            assert status == 200
            found = samples(text)
            assert found["vectorizer_rows_total", "post"] == 4
            assert found["vectorizer_chunks_total", "embedded", "post"] == 4
            assert found["vectorizer_batches_total", "ok", "post"] >= 2
            assert found["vectorizer_commit_to_searchable_seconds_count", "post"] == 1
            for stage in ("claim", "load", "prepare", "embed", "finish"):
                assert found["vectorizer_batch_stage_seconds_count", stage, "post"] >= 2
            assert found["vectorizer_queue_rows", "post"] == 0
            assert found["vectorizer_oldest_change_age_seconds", "post"] == 0
            assert found["vectorizer_backfill_done", "post"] == 1
            assert found["vectorizer_embeddings", "post"] == 4
            assert found["vectorizer_partitions", "post"] == 0
            assert found["vectorizer_texts_asked_today", "post"] == 4
            assert found["vectorizer_texts_today", "post"] == 4
            assert found["vectorizer_tokens_asked_today", "post"] >= 4
            assert found["vectorizer_paused", "post"] == 0
            assert found["vectorizer_unserved", "post"] == 0
            assert [value for name, value in found.items() if name[0] == "vectorizer_build_info"]
            _, text = get(f"{address}/metrics", Accept="application/openmetrics-text")
            assert text.endswith("# EOF\n")


def test_health_and_readiness(vectorizer_url: str) -> None:
    with served(vectorizer_url) as (_, address):
        # Nothing is installed: alive, but nothing to serve.
        assert get(f"{address}/healthz")[0] == 200
        status, body = get(f"{address}/readyz")
        assert (status, json.loads(body)["ready"]) == (503, False)
        assert get(f"{address}/metrics")[0] == 200
        assert get(f"{address}/")[0] == 404
        with psycopg.connect(vectorizer_url, autocommit=True) as db:
            db.execute("create table post (id int primary key, body text)")
        with Vectorizer(
            vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body"
        ) as vectorizer:
            vectorizer.install()

        def ready() -> bool:
            return get(f"{address}/readyz")[0] == 200

        until(ready)


def test_a_loop_that_is_stuck_is_not_healthy(
    vectorizer_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(vectorizer_url) as (_, address):
        monkeypatch.setattr("vectorizer.worker._http._STUCK_SECONDS", -1)
        assert get(f"{address}/healthz")[0] == 503


async def test_an_address_that_is_taken_is_named(vectorizer_url: str) -> None:
    worker = Worker(vectorizer_url)
    async with serving_http(worker, Metrics(), "127.0.0.1", 0) as port:
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            async with serving_http(worker, Metrics(), "127.0.0.1", port):
                pass


def test_every_event_is_counted() -> None:
    metrics = Metrics()
    for event in (
        BatchFinished("one", "b", Counts(5, 4, 3, 2, 1), {"claim": 0.5}, 2.0),
        BatchFinished("one", "b", Counts(1), {}, None),
        BatchFailed("one", "b", 3, "EmbedderUnavailable"),
        LeaseWasLost("one", "b"),
        RequestFinished("one", "unavailable", 10, 100, 0.5),
        RequestRetried("one", "EmbedderUnavailable"),
    ):
        metrics(event)
    found = samples(metrics.text()[1].decode())
    assert found["vectorizer_rows_total", "one"] == 6
    assert found["vectorizer_row_failures_total", "one"] == 1
    assert found["vectorizer_chunks_total", "kept", "one"] == 3
    assert found["vectorizer_batches_total", "EmbedderUnavailable", "one"] == 1
    assert found["vectorizer_lease_losses_total", "one"] == 1
    assert found["vectorizer_requests_total", "unavailable", "one"] == 1
    assert found["vectorizer_tokens_total", "one"] == 100
    assert found["vectorizer_request_retries_total", "EmbedderUnavailable", "one"] == 1
    assert found["vectorizer_commit_to_searchable_seconds_sum", "one"] == 2
    # Two in one process do not meet.
    assert "vectorizer_rows_total{" not in Metrics().text()[1].decode()


def test_requests_are_told_of_only_within_an_observed_batch() -> None:
    seen: list[Any] = []
    emit("ok", texts=1, tokens=2, seconds=0.1)
    with recorded(seen.append, "one"):
        emit("ok", texts=1, tokens=2, seconds=0.1)
    assert seen == [RequestFinished("one", "ok", 1, 2, 0.1)]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("root_logger")
def test_a_line_of_json_names_the_batch_it_was_written_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _logs.configure("json", "info")
    log = logging.getLogger("vectorizer")
    log.info("outside")
    with recorded(None, "one") as record:
        log.info("a %s", "claim")
        record.batch = type("Batch", (), {"token": "abc", "size": 7})()  # type: ignore[assignment]
        log.warning("inside")
        log.debug("unsaid")
    outside, claim, inside = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert outside["message"] == "outside"
    assert "vectorizer" not in outside
    assert claim["vectorizer"] == "one"
    assert (inside["level"], inside["batch"], inside["keys"]) == ("warning", "abc", 7)
