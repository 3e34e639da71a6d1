"""OpenAIEmbedder over real HTTP against `openai_server`; waits are recorded, not waited."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from openai_server import (
    altered,
    answer,
    duplicated_index,
    fail,
    hold,
    raw,
    reset,
    serve,
    short_of_one,
    shuffled,
    truncated,
    vector,
    with_nan,
    wrong_dimension,
)

from vectorizer.embedders import create, describe
from vectorizer.embedders._limiter import Limiter
from vectorizer.embedders._openai_answers import retry_after
from vectorizer.embedders.openai import OpenAIEmbedder
from vectorizer.errors import (
    ConfigurationError,
    EmbedderError,
    EmbedderRefused,
    EmbedderUnavailable,
    InputRejected,
    InvalidEmbeddings,
)
from vectorizer.types import Embedder
from vectorizer.vectors import as_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openai_server import Fault, Items, Recorded, Server
    from starlette.types import ASGIApp

KEY = "sk-test-0123456789abcdefghijklmnop"
TEXTS = ["a first text", "a second one", "naïve café, 東京"]
EXPECTED = np.stack([vector(text, 8) for text in TEXTS])


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve(dimensions=8) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.reset()
    return running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def make(server: Server, waits: list[float]) -> Iterator[Callable[..., OpenAIEmbedder]]:
    made: list[OpenAIEmbedder] = []

    def make(model: str = "test", **options: Any) -> OpenAIEmbedder:
        defaults: dict[str, Any] = {"dimensions": 8, "base_url": server.url, "api_key": KEY}
        embedder = OpenAIEmbedder(model, **(defaults | options))
        embedder._backoff = 0.0
        # A wait is recorded, and then time has passed.
        embedder._pause = waits.append
        embedder._limiter = Limiter(lambda: time.monotonic() + sum(waits))
        made.append(embedder)
        return embedder

    yield make
    for embedder in made:
        embedder.close()


@pytest.fixture
def embedder(make: Callable[..., OpenAIEmbedder]) -> OpenAIEmbedder:
    return make()


# The answer


def test_vectors_come_in_the_order_of_the_texts(embedder: OpenAIEmbedder, server: Server) -> None:
    matrix = embedder.embed(TEXTS)
    assert matrix.dtype == np.float32
    assert matrix.flags.writeable
    np.testing.assert_array_equal(matrix, EXPECTED)
    assert isinstance(embedder, Embedder)
    assert server.requests[0].body == {"model": "test", "input": TEXTS, "encoding_format": "base64"}


def test_a_server_that_answers_in_floats_serves_too(make: Callable[..., OpenAIEmbedder]) -> None:
    with serve(dimensions=8, floats_only=True) as server:
        matrix = make(base_url=server.url).embed(TEXTS)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, EXPECTED)


def test_vectors_are_placed_by_their_index(embedder: OpenAIEmbedder, server: Server) -> None:
    server.script(shuffled)
    np.testing.assert_array_equal(embedder.embed(TEXTS), EXPECTED)


def test_without_index_the_position_counts(embedder: OpenAIEmbedder, server: Server) -> None:
    server.script(raw('{"data": [{"embedding": [1,2,3,4,5,6,7,8]}]}'))
    np.testing.assert_array_equal(embedder.embed(["a"]), [[1, 2, 3, 4, 5, 6, 7, 8]])


def test_no_texts_no_request(embedder: OpenAIEmbedder, server: Server) -> None:
    assert embedder.embed([]).shape == (0, 8)
    assert not server.requests


def test_a_single_text_is_an_error_of_the_caller(embedder: OpenAIEmbedder) -> None:
    with pytest.raises(TypeError, match="sequence of texts"):
        embedder.embed("not a list")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (short_of_one, "expected 3 vectors, one a text, got 2"),
        (altered(lambda items: [*items, *items[:1]]), "expected 3 vectors, one a text, got 4"),
        (wrong_dimension, "expected vectors of 8 dimensions, got 7 in vector 0"),
        (with_nan, "expected finite numbers, got nan in vector 0, component 0"),
        (
            altered(lambda items: [(i, v + np.float32("inf")) for i, v in items]),
            "got inf in vector 0",
        ),
        (duplicated_index, "expected each index from 0 to 2 once, got 0 in vector 1"),
        (altered(lambda items: [(i + 1, v) for i, v in items]), "once, got 3 in vector 2"),
        (altered(lambda items: [(i - 1, v) for i, v in items]), "once, got -1 in vector 0"),
        (raw("{}"), "expected data with index and embedding.*KeyError"),
        (raw("[]"), "expected data with index and embedding.*TypeError"),
        (raw('{"data": [1, 2, 3]}'), "expected data with index and embedding.*AttributeError"),
        (raw('{"data": [{"embedding": "AAA="}, {}, {}]}'), "index and embedding.*ValueError"),
    ],
)
def test_a_wrong_answer_is_named_and_not_asked_for_again(
    embedder: OpenAIEmbedder, server: Server, fault: Fault, message: str
) -> None:
    server.script(fault)
    with pytest.raises(InvalidEmbeddings, match=message):
        embedder.embed(TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("number", ["NaN", "1e39", "-Infinity", "null"])
def test_a_number_that_is_none(embedder: OpenAIEmbedder, server: Server, number: str) -> None:
    server.script(raw(f'{{"data": [{{"embedding": [1, 2, 3, 4, 5, 6, 7, {number}]}}]}}'))
    with pytest.raises(InvalidEmbeddings, match="vector 0, component 7"):
        embedder.embed(["a"])


@pytest.mark.parametrize(
    "vectors", [[[1.0, 2.0], [3.0]], [1.0, 2.0], [["a", "b"], ["c", "d"]], [[10**400, 1]] * 2, None]
)
def test_what_is_not_a_matrix(vectors: object) -> None:
    with pytest.raises(InvalidEmbeddings, match="expected"):
        as_matrix(vectors, 2, 2)


# What is sent


@pytest.mark.parametrize(
    ("model", "dimensions", "sent"),
    [
        ("text-embedding-3-small", 256, 256),
        ("text-embedding-3-large", 256, 256),
        ("text-embedding-3-small", None, None),
        ("text-embedding-ada-002", 8, None),
        ("nomic-embed-text", 8, None),
    ],
)
def test_dimensions_are_sent_where_they_are_known(
    make: Callable[..., OpenAIEmbedder],
    server: Server,
    model: str,
    dimensions: int | None,
    sent: int | None,
) -> None:
    embedder = make(model, dimensions=dimensions)
    if dimensions is None:
        server.script(altered(lambda items: [(i, vector("a", 1536)) for i, _ in items]))
    assert embedder.embed(["a"]).shape == (1, embedder.dimensions)
    assert server.requests[0].body.get("dimensions") == sent


def test_dimensions_of_a_new_model_are_sent_to_openai_itself() -> None:
    assert OpenAIEmbedder("text-embedding-9", dimensions=7, api_key=KEY)._extra == {"dimensions": 7}


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        ("text-embedding-3-small", 1536),
        ("text-embedding-3-large", 3072),
        ("text-embedding-ada-002", 1536),
    ],
)
def test_dimensions_of_the_known_models(model: str, dimensions: int) -> None:
    assert OpenAIEmbedder(model, api_key=KEY).dimensions == dimensions


def test_many_texts_go_in_several_requests(embedder: OpenAIEmbedder, server: Server) -> None:
    texts = [f"{number}" for number in range(2049)]
    matrix = embedder.embed(texts)
    assert sorted(len(request.texts) for request in server.requests) == [1, 2048]
    np.testing.assert_array_equal(matrix, np.stack([vector(text, 8) for text in texts]))


def test_many_tokens_go_in_several_requests(embedder: OpenAIEmbedder, server: Server) -> None:
    # 100,000 tokens each as we count them: three fill a request.
    embedder.embed([character * 300_000 for character in "abcd"])
    assert sorted(len(request.texts) for request in server.requests) == [1, 3]


def test_a_text_that_is_no_unicode_is_rejected(embedder: OpenAIEmbedder, server: Server) -> None:
    with pytest.raises(InputRejected, match="surrogates not allowed at character 3"):
        embedder.embed(["a", "bcd\ud800"])
    assert not server.requests


# Key and headers


def test_the_key_comes_from_the_environment(
    make: Callable[..., OpenAIEmbedder], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment\n")
    make(api_key=None).embed(["a"])
    make(api_key="from-argument").embed(["a"])
    keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer from-environment", "Bearer from-argument"]


def test_a_compatible_server_may_need_no_key(
    make: Callable[..., OpenAIEmbedder], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(api_key=None).embed(["a"])
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    make(api_key=None, base_url=None).embed(["a"])
    assert len(server.requests) == 2


def test_headers_are_sent_but_not_part_of_the_configuration(
    make: Callable[..., OpenAIEmbedder], server: Server
) -> None:
    embedder = make(headers={"api-key": "secret of azure"})
    embedder.embed(["a"])
    assert server.requests[0].headers["api-key"] == "secret of azure"
    assert "azure" not in f"{embedder.config} {embedder!r}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 418, 429, 500])
def test_neither_key_nor_texts_are_ever_shown(
    make: Callable[..., OpenAIEmbedder],
    server: Server,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    long, short = "a confidential report of\nsome length", "Rumpelstilt"
    said = f"wrong key '{KEY}' or {KEY[:12]}…, Bearer hunter2-hunter2; input: {[long, short]}"
    server.script(then=fail(status, said))
    embedder = make(headers={"x-token": "hunter2-hunter2"})
    with caplog.at_level(logging.DEBUG), pytest.raises(EmbedderError) as caught:
        embedder.embed_request([long, short])
    shown = "".join(traceback.format_exception(caught.value))
    logged = "".join(record.getMessage() for record in caplog.records)
    for secret in (KEY, KEY[:12], "hunter2"):
        assert secret not in f"{shown} {logged} {embedder!r} {embedder.config}"
    for text in ("confidential", "some length", short):
        assert text not in str(caught.value)
    assert "wrong key" in str(caught.value)


def test_a_key_that_no_header_can_carry_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        OpenAIEmbedder(api_key="sk-with\na line end")
    assert "sk-with" not in str(caught.value)


# Attempts


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
def test_tries_again_after_a_passing_error(
    embedder: OpenAIEmbedder, server: Server, status: int
) -> None:
    server.script(fail(status), fail(status))
    np.testing.assert_array_equal(embedder.embed(TEXTS), EXPECTED)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "fault", [reset, truncated, raw('{"data": ['), raw("<html>", media_type="text/html")]
)
def test_tries_again_after_half_an_answer(
    embedder: OpenAIEmbedder, server: Server, fault: Fault
) -> None:
    server.script(fault)
    np.testing.assert_array_equal(embedder.embed(TEXTS), EXPECTED)
    assert len(server.requests) == 2


# On a busy machine the server may read a request after its client has given up: these two
# have a server of their own, so that it does not land in another test.


def test_tries_again_after_silence(make: Callable[..., OpenAIEmbedder]) -> None:
    with serve(dimensions=8) as server:
        server.script(hold())
        matrix = make(base_url=server.url, timeout=0.5).embed(TEXTS)
        np.testing.assert_array_equal(matrix, EXPECTED)
        assert len(server.requests) >= 2


def test_gives_up_after_silence(make: Callable[..., OpenAIEmbedder]) -> None:
    with serve() as server:
        server.script(then=hold())
        embedder = make(base_url=server.url, timeout=0.05, max_attempts=2)
        with pytest.raises(EmbedderUnavailable, match=r"no answer within 0\.05 s \(attempt 2 of 2"):
            embedder.embed(TEXTS)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (fail(503, "overloaded"), r"test at 127\.0\.0\.1:\d+: 503 overloaded \(attempt 3 of 3\)"),
        (raw("", status=502), "502 Bad Gateway"),
        (raw("<html>", status=502), "502 Bad Gateway"),
        (reset, "Connection reset"),
        (truncated, "incomplete|without sending complete"),
        (raw("<html>", media_type="text/html"), "the answer is not JSON.*check base_url"),
    ],
)
def test_gives_up_in_the_end(
    make: Callable[..., OpenAIEmbedder], server: Server, fault: Fault, message: str
) -> None:
    server.script(then=fault)
    with pytest.raises(EmbedderUnavailable, match=message) as caught:
        make(max_attempts=3).embed(TEXTS)
    assert len(server.requests) == 3
    assert caught.value.retry_after is None


def test_nobody_listens(make: Callable[..., OpenAIEmbedder]) -> None:
    with serve() as gone:
        pass
    with pytest.raises(EmbedderUnavailable, match="refused"):
        make(base_url=gone.url).embed(["a"])


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"Retry-After": "nonsense"}, 0),
        ({}, 0),
    ],
)
def test_waits_as_long_as_the_server_asks(
    embedder: OpenAIEmbedder,
    server: Server,
    waits: list[float],
    headers: dict[str, str],
    wait: float,
) -> None:
    server.script(fail(429, headers=headers), fail(503, headers=headers))
    embedder.embed(["a"])
    assert waits == [wait, wait]


def test_waits_until_the_date_the_server_names(
    embedder: OpenAIEmbedder, server: Server, waits: list[float]
) -> None:
    server.script(fail(429, headers={"Retry-After": formatdate(time.time() + 30, usegmt=True)}))
    embedder.embed(["a"])
    assert waits[0] == pytest.approx(30, abs=3)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:40 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:05 GMT"}, 0),
        ({"retry-after": "Thu, 01 Jan 99999 00:00:05 GMT"}, None),
        # The server's clock counts where ours is hours off.
        (
            {
                "retry-after": "Thu, 01 Jan 1970 10:00:40 GMT",
                "date": "Thu, 01 Jan 1970 10:00:35 GMT",
            },
            5,
        ),
    ],
)
def test_reading_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, 10.0) == seconds


def test_gives_up_at_once_if_asked_to_wait_longer_than_a_minute(
    embedder: OpenAIEmbedder, server: Server, waits: list[float]
) -> None:
    server.script(fail(429, headers={"Retry-After": "61"}))
    with pytest.raises(EmbedderUnavailable, match="attempt 1 of 5") as caught:
        embedder.embed(["a"])
    assert caught.value.retry_after == 61
    assert waits == []


def test_without_being_asked_it_waits_longer_and_longer(
    make: Callable[..., OpenAIEmbedder], server: Server, waits: list[float]
) -> None:
    embedder = make(max_attempts=12)
    embedder._backoff = 1.0
    server.script(then=fail(500))
    with pytest.raises(EmbedderUnavailable):
        embedder.embed(["a"])
    bounds = [min(2.0**attempt, 60.0) for attempt in range(11)]
    assert len(waits) == 11
    assert all(0 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    assert len(set(waits)) > 1
    assert sum(waits) > 1


def test_the_random_part_comes_on_top_and_a_minute_is_the_most(
    embedder: OpenAIEmbedder, server: Server, waits: list[float]
) -> None:
    embedder._backoff = 1.0
    server.script(*[fail(429, headers={"Retry-After": wait}) for wait in ("5", "60")])
    embedder.embed(["a"])
    assert 5 < waits[0] <= 6
    assert waits[1] == 60


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (fail(401, "Incorrect API key", code="invalid_api_key"), "401 Incorrect.*OPENAI_API_KEY"),
        (fail(401), "check the API key"),
        (fail(403, "country not supported"), "403 country not supported; check what"),
        (fail(404, "no such model", code="model_not_found"), "no such model; check the model"),
        (raw('{"detail": "Not Found"}', status=404), "Not Found; check the model's name and base"),
        (fail(429, "quota", code="insufficient_quota"), "429 quota; add credit"),
        (fail(400, "no", code="billing_hard_limit_reached"), "raise the limit"),
        (fail(402), "402 .*; check"),
        (fail(405), "405 .*; check"),
    ],
)
def test_what_somebody_must_mend_is_not_tried_again(
    embedder: OpenAIEmbedder, server: Server, fault: Fault, message: str
) -> None:
    server.script(fault)
    with pytest.raises(EmbedderRefused, match=message):
        embedder.embed(TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (fail(400, "maximum context length is 8192 tokens"), "400 maximum context length is 8192"),
        (fail(413), "413 the message of the provider"),
        (fail(422), "422 the message of the provider"),
        (raw('{"error": "batch size 64 > 32"}', status=422), "422 batch size 64 > 32"),
        (raw('{"detail": [{"msg": "too long", "input": "x"}]}', status=422), "422 too long$"),
        (raw('[{"error": {"message": "as a list"}}]', status=400), "400 as a list"),
        (raw("in plain text", status=400, media_type="text/plain"), "400 in plain text"),
        (raw("<html>too large</html>", status=413), "413 [A-Z][a-z ]+"),
    ],
)
def test_texts_that_are_refused(
    embedder: OpenAIEmbedder, server: Server, fault: Fault, message: str
) -> None:
    server.script(fault)
    with pytest.raises(InputRejected, match=message):
        embedder.embed_request(TEXTS)
    assert len(server.requests) == 1


def test_a_long_message_is_cut(embedder: OpenAIEmbedder, server: Server) -> None:
    server.script(fail(400, "so many\nwords " * 1000))
    with pytest.raises(InputRejected) as caught:
        embedder.embed(["a"])
    assert "so many words so many" in str(caught.value)
    assert len(str(caught.value)) < 350


def test_one_bad_text_among_good_ones(embedder: OpenAIEmbedder, server: Server) -> None:
    def poison(request: Recorded, items: Items) -> ASGIApp:
        rejected = "poison" in request.texts
        return (fail(400, "not allowed") if rejected else answer)(request, items)

    server.script(then=poison)
    with pytest.raises(InputRejected, match="not allowed"):
        embedder.embed(["a", "poison"])
    np.testing.assert_array_equal(embedder.embed(["a"]), [vector("a", 8)])


# Life


def test_many_threads_share_one_client(embedder: OpenAIEmbedder) -> None:
    def embed(number: int) -> Any:
        matrix = embedder.embed([f"{number}", "the same"])
        np.testing.assert_array_equal(matrix, [vector(f"{number}", 8), vector("the same", 8)])
        return embedder._client

    with ThreadPoolExecutor(16) as threads:
        clients = set(threads.map(embed, range(64)))
    assert len(clients) == 1


def test_the_connection_is_kept(embedder: OpenAIEmbedder, server: Server) -> None:
    for _ in range(3):
        embedder.embed(["a"])
    assert len({request.port for request in server.requests}) == 1


def test_a_closed_embedder_serves_no_more(make: Callable[..., OpenAIEmbedder]) -> None:
    with make() as embedder:
        embedder.embed(["a"])
    embedder.close()
    with pytest.raises(EmbedderUnavailable, match=r"is closed \(attempt 1 of 5"):
        embedder.embed(["a"])


def test_close_ends_the_wait_for_the_next_attempt(server: Server) -> None:
    asked = threading.Event()

    def busy(request: Recorded, items: Items) -> ASGIApp:
        asked.set()
        return fail(429, headers={"Retry-After": "50"})(request, items)

    server.script(then=busy)
    embedder = OpenAIEmbedder("test", dimensions=8, base_url=server.url, timeout=10)
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(embedder.embed, ["a"])
        asked.wait()
        started = time.monotonic()
        embedder.close()
        with pytest.raises(EmbedderUnavailable):
            call.result()
    assert time.monotonic() - started < 20


def test_an_embedder_that_is_forgotten_leaves_no_socket_open(server: Server) -> None:
    embedder = OpenAIEmbedder("test", dimensions=8, base_url=server.url)
    embedder.embed(["a"])
    client = embedder._connect()
    del embedder
    gc.collect()
    assert client.is_closed()


def test_close_under_another_thread(make: Callable[..., OpenAIEmbedder], server: Server) -> None:
    held = hold()
    server.script(held)
    embedder = make(timeout=10)
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(embedder.embed, ["a"])
        held.reached.wait()
        embedder.close()
        held.release()
        with pytest.raises(EmbedderUnavailable):
            call.result()


def test_a_client_closed_between_two_steps(embedder: OpenAIEmbedder) -> None:
    embedder.embed(["a"])
    client = embedder._connect()
    embedder.close()
    # As if this thread had got the client just before.
    embedder._connect = lambda: client  # type: ignore[method-assign]
    with pytest.raises(EmbedderUnavailable, match="closed"):
        embedder.embed(["a"])


def test_openai_is_imported_by_the_first_embed_only() -> None:
    program = (
        "import sys; from vectorizer.embedders.openai import OpenAIEmbedder;"
        "OpenAIEmbedder(api_key='x').close(); sys.exit('openai' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Configuration


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "text-embedding-3-large", "dimensions": 256},
        {
            "model": "nomic-embed-text",
            "dimensions": 768,
            "base_url": "http://localhost:11434/v1",
            "timeout": 5.0,
            "max_attempts": 2,
        },
    ],
)
def test_the_configuration_makes_the_same_embedder(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    embedder = OpenAIEmbedder(**options)
    expected = {"provider": "openai", "model": "text-embedding-3-small"} | options
    assert describe(embedder) == expected
    again = create(expected)
    assert isinstance(again, OpenAIEmbedder)
    assert again.config == expected
    assert again.dimensions == embedder.dimensions
    assert KEY not in f"{embedder.config} {embedder!r}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": None}, "no API key for OpenAI: set OPENAI_API_KEY"),
        ({"api_key": " "}, "no API key"),
        ({"api_key": "with blank"}, "the API key holds a blank"),
        ({"model": "mystery"}, "'mystery' is not known: give dimensions"),
        ({"dimensions": 0}, "dimensions must be at least 1"),
        ({"dimensions": 4000}, "text-embedding-3-small has 1536 dimensions"),
        ({"model": "text-embedding-ada-002", "dimensions": 512}, "it cannot give 512"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"max_attempts": 0}, "max_attempts must be at least 1"),
        ({"base_url": "localhost:8000/v1"}, r"http\(s\)://host"),
        ({"base_url": "http://[bad"}, r"http\(s\)://host"),
        ({"base_url": "http://h:port"}, r"http\(s\)://host"),
        ({"base_url": "http://me:hunter2@h/v1"}, "no user, password or query"),
        ({"base_url": "http://h/v1?key=hunter2"}, "no user, password or query"),
        ({"headers": {"x-token": "hunter2\n"}}, "header 'x-token' must be"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        OpenAIEmbedder(**{"api_key": KEY, **options})
    assert "hunter2" not in str(caught.value)
