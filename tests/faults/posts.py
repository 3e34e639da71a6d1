"""A table of posts with a vectorizer on it, and models that wait, refuse and count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

__all__ = ["Background", "Gate", "Rule", "check", "contents", "create", "posts"]

_DIMENSIONS = 8
_SECONDS = 20


def create(url: str, rows: int = 0) -> psycopg.Connection[Any]:
    """Make the table; return a connection whose statements never wait long for anybody."""
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("create table posts (id bigint primary key, body text, note text)")
    connection.execute(
        "insert into posts select n, 'post ' || n || ' as it was' from generate_series(1, %s) n",
        [rows],
    )
    connection.execute("set statement_timeout = '10s'")
    return connection


def posts(url: str, embedder: Any = None, **options: Any) -> Vectorizer:
    """Return the vectorizer of the table, not installed."""
    return Vectorizer(
        url,
        "posts",
        embedder=embedder or FakeEmbedder(_DIMENSIONS),
        chunk_column="body",
        **{"lease_seconds": 30.0, **options},
    )


def contents(connection: psycopg.Connection[Any]) -> dict[int, list[str]]:
    """Return what is embedded, by key."""
    found: dict[int, list[str]] = {}
    for key, text in connection.execute(
        "select source_id, contents from posts_embedding order by source_id, chunk"
    ):
        found.setdefault(key, []).append(text)
    return found


def check(connection: psycopg.Connection[Any], vectorizer: Vectorizer) -> None:
    """Assert that everything is embedded as it is now, and that nothing waits."""
    source = connection.execute("select id, body from posts where trim(body) <> ''").fetchall()
    assert contents(connection) == {key: [body] for key, body in source}
    found = vectorizer.verify()
    assert found.ok, found
    assert (found.pending, found.dead) == (0, 0)
    for table in ("lease", "posts_log"):
        assert connection.execute(f"select count(*) from vectorizer.{table}").fetchone() == (0,)


class Gate(FakeEmbedder):
    """Keeps each call waiting until `open`; `reached` is set when one waits."""

    def __init__(self) -> None:
        super().__init__(_DIMENSIONS)
        self.reached = threading.Event()
        self._opened = threading.Event()
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        self.seen += texts
        self.reached.set()
        assert self._opened.wait(_SECONDS), "nobody opened the gate"
        return super().embed(texts)

    def close(self) -> None:
        self.reached.clear()
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()


class Rule(FakeEmbedder):
    """Calls `rule(texts)` first, which may raise; counts what it embedded in `seen`."""

    def __init__(self, rule: Callable[[Sequence[str]], object] = lambda _: None) -> None:
        super().__init__(_DIMENSIONS)
        self.rule = rule
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        self.rule(texts)
        self.seen += texts
        return super().embed(texts)


class Background:
    """Runs a function in a thread; `result()` waits for it and raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait for the end, but not for long."""
        self._thread.join(seconds)

    def result(self) -> Any:
        self._thread.join(_SECONDS * 2)
        assert not self.running, "it hangs"
        if self._error is not None:
            raise self._error
        return self._value
