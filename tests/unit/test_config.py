"""Configuration: which source wins, and what is said of a key that is wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import tomlkit

from vectorizer.cli.install import command as install
from vectorizer.config import Config, VectorizerConfig, load, masked
from vectorizer.definition import Definition, Options
from vectorizer.errors import ConfigurationError
from vectorizer.suggestion import Column, suggest

BLOG = '[vectorizers.blog]\ntable = "blog"\nchunk_column = "contents"\n'


@pytest.fixture
def read(tmp_path: Path) -> Any:
    file = tmp_path / "vectorizer.toml"

    def reader(text: str, environment: dict[str, str] | None = None, **flags: Any) -> Config:
        file.write_text(text)
        return load(file, environment or {}, flags).config

    return reader


def test_a_flag_wins_over_the_environment_and_that_over_the_file(read: Any) -> None:
    text = "[worker]\nconcurrency = 1\nbatch_size = 2\nidle_seconds = 3"
    environment = {"VECTORIZER_WORKER_BATCH_SIZE": "20", "VECTORIZER_WORKER_IDLE_SECONDS": "30"}
    worker = read(text, environment, worker={"idle_seconds": 300.0, "batch_size": None}).worker
    assert (worker.concurrency, worker.batch_size, worker.idle_seconds) == (1, 20, 300)
    assert worker.poll_seconds == 0.02


def test_everything_can_be_said_in_the_environment(read: Any) -> None:
    config = read(
        BLOG,
        {
            "VECTORIZER_DATABASE_URL": "postgresql://one",
            "DATABASE_URL": "postgresql://two",
            "VECTORIZER_LOG_FORMAT": "json",
            "VECTORIZER_METRICS_PORT": "9187",
            "VECTORIZER_WORKER_UPKEEP": "false",
            "VECTORIZER_WORKER_SCHEDULES": '{ blog = "@daily" }',
            "VECTORIZER_VECTORIZERS__BLOG__METADATA": "author, title",
            "VECTORIZER_VECTORIZERS__BLOG__TEMPLATE": "{title}: {chunk}",
            "VECTORIZER_VECTORIZERS__BLOG__CHUNK_SIZE": "[10, 20]",
            "VECTORIZER_WORKER_LISTEN": "",
        },
    )
    assert config.database.url == "postgresql://one"
    assert (config.log.format, config.metrics.port) == ("json", 9187)
    assert config.worker.schedules == {"blog": "@daily"}
    assert (config.worker.upkeep, config.worker.listen) == (False, None)
    blog = config.vectorizers["blog"]
    assert blog.options() == {
        "chunk_column": "contents",
        "metadata": ("author", "title"),
        "template": "{title}: {chunk}",
        "chunk_size": (10, 20),
    }


def test_what_kubernetes_sets_for_a_service_is_not_ours(read: Any) -> None:
    config = read(
        "",
        {
            "VECTORIZER_METRICS_PORT": "tcp://10.0.0.1:9187",
            "VECTORIZER_METRICS_SERVICE_HOST": "10.0.0.1",
            "VECTORIZER_METRICS_PORT_9187_TCP_ADDR": "10.0.0.1",
            "VECTORIZER_HOME": "/somewhere",
        },
    )
    assert config.metrics.port is None


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("[worker]\nconcurency = 8", {}, ["vectorizer.toml", "worker.concurency", "concurrency?"]),
        ("[worker]\nconcurrency = 0", {}, ["worker.concurrency is 0", "greater than or equal"]),
        ("[wroker]\nconcurrency = 1", {}, ["wroker", "did you mean worker?", "vectorizers"]),
        ("worker = 3", {}, ["worker is 3"]),
        ("worker = 3\nx = 4", {}, ["worker is 3", "unknown key x"]),
        ('[log]\nformat = "xml"', {}, ["log.format is 'xml'", "'console' or 'json'"]),
        ("[metrics]\nport = 99999", {}, ["metrics.port is 99999", "65535"]),
        ('[vectorizers.blog]\ntable = "blog"', {}, ["vectorizers.blog.chunk_column is required"]),
        ("vectorizers = 3", {}, ["vectorizers is 3"]),
        (BLOG + 'templat = "x"', {}, ["vectorizers.blog.templat", "did you mean template?"]),
        (BLOG + 'template = "x{"', {}, ["vectorizers.blog", "unpaired {"]),
        (BLOG + 'partition_interval = "30 days"', {}, ["30 days", "24h, 30d or 4w"]),
        (BLOG + 'model = "x"', {}, ["belong into the embedder"]),
        (BLOG + "chunk_size = [20, 10]", {}, ["vectorizers.blog"]),
        (BLOG + 'embedder = { api_key = "sk-1" }', {}, ["api_key", "OPENAI_API_KEY"]),
        (BLOG + "embedder = { headers = { Authorization = 'x' } }", {}, ["Authorization"]),
        ("[worker]\nschedules = { blog = 'often' }", {}, ["worker.schedules", "'often'"]),
        (
            "[worker]\nverify_schedule = '@daily'\ntimezone = 'Mars'",
            {},
            ["worker.timezone", "Mars"],
        ),
        ("x =", {}, ["vectorizer.toml is no TOML"]),
        ("", {"VECTORIZER_LOG_LEVEL": "loud"}, ["VECTORIZER_LOG_LEVEL", "'loud'", "'warning'"]),
        ("", {"VECTORIZER_LOG_COLOUR": "red"}, ["VECTORIZER_LOG_COLOUR", "log.colour"]),
    ],
)
def test_what_is_wrong_is_named(
    read: Any, text: str, environment: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(text, environment)
    assert [word for word in words if word not in str(raised.value)] == [], raised.value
    assert "sk-1" not in str(raised.value)


def test_a_flag_that_is_wrong_is_named(read: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"--batch-size.*worker.batch_size is 0"):
        read("", worker={"batch_size": 0})


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, {}).file is None
    with pytest.raises(ConfigurationError, match="vectorizer init"):
        load(tmp_path / "other.toml", {}, {})
    with pytest.raises(ConfigurationError, match="vectorizer init"):
        load(None, {"VECTORIZER_CONFIG": "other.toml"}, {})
    (tmp_path / "vectorizer.toml").write_text(BLOG)
    assert load(None, {}, {}).file == Path("vectorizer.toml")


def test_the_sources_of_what_is_given_are_told_and_secrets_are_not(tmp_path: Path) -> None:
    file = tmp_path / "v.toml"
    file.write_text('[database]\nurl = "postgresql://me:secret@host/db"\n' + BLOG)
    loaded = load(file, {"VECTORIZER_WORKER_CONCURRENCY": "3"}, {"log": {"level": "debug"}})
    assert list(loaded.given()) == [
        (("database", "url"), "postgresql://me:***@host/db", str(file)),
        (("log", "level"), "debug", "command line, --level"),
        (("vectorizers", "blog", "chunk_column"), "contents", str(file)),
        (("vectorizers", "blog", "table"), "blog", str(file)),
        (("worker", "concurrency"), 3, "environment, VECTORIZER_WORKER_CONCURRENCY"),
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:a%3Ab@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p:w@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
        ("host=h password = 'se cret' dbname=d", "host=h password = *** dbname=d"),
        ("postgresql://host/db?password=secret&sslmode=require",
         "postgresql://host/db?password=***&sslmode=require"),
    ],
)  # fmt: skip
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(("database", "url"), url) == shown


def test_every_option_of_a_definition_can_be_configured_and_given_as_a_flag() -> None:
    import inspect  # noqa: PLC0415

    options = set(get_type_hints(Options))
    assert options < set(VectorizerConfig.model_fields)
    assert set(Definition.model_fields) < set(VectorizerConfig.model_fields)
    # A query with its parents is too much for a flag.
    assert options - {"joined"} <= set(inspect.signature(install).parameters)


def test_intervals_are_those_of_people(read: Any) -> None:
    text = BLOG + 'time_column = "at"\npartition_interval = "4w"\nretention = "90d"'
    options = read(text).vectorizers["blog"].options()
    assert options["partition_interval"] == timedelta(weeks=4)
    assert options["retention"] == timedelta(days=90)


def test_a_suggestion_takes_the_longest_text() -> None:
    columns = [
        Column("id", "text", True, 500),
        Column("slug", "text", False, 20),
        Column("title", "text", False, 40),
        Column("body", "text", False, 900),
        Column("views", "integer", False, 3),
        Column("updated_at", "timestamp with time zone", False, 20),
        Column("published_at", "timestamp with time zone", False, 20),
    ]
    found = suggest(columns)
    assert (found.chunk_column, found.template) == ("body", "{title}: {chunk}")
    assert (found.metadata, found.time_column) == (("slug",), "published_at")


def test_what_is_written_can_be_read(read: Any) -> None:
    document = tomlkit.dumps({"vectorizers": {"a.b c": {"table": "x", "chunk_column": "y"}}})
    assert list(read(document).vectorizers) == ["a.b c"]
