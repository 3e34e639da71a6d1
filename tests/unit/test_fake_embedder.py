from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vectorizer import embedders
from vectorizer.errors import ConfigurationError
from vectorizer.testing import FakeEmbedder
from vectorizer.types import Embedder


def test_it_is_an_embedder() -> None:
    assert isinstance(FakeEmbedder(), Embedder)


def test_one_unit_vector_a_text() -> None:
    vectors = FakeEmbedder(dimensions=5).embed(["a cat", "", "a dog that barks", "猫"])
    assert vectors.shape == (4, 5)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_no_texts_give_no_vectors() -> None:
    assert FakeEmbedder(dimensions=5).embed([]).shape == (0, 5)


def test_it_never_changes() -> None:
    # Stored vectors, and the expectations of tests, outlive a release and a machine.
    vector = FakeEmbedder(dimensions=3).embed(["a cat"])[0]
    assert vector == pytest.approx([-0.456986, -0.889223, 0.021131], abs=1e-6)


def test_texts_that_share_words_are_near() -> None:
    question, near, far = FakeEmbedder(dimensions=256).embed(
        ["where does the cat sleep", "The cat, it sleeps where?", "postgres partitions by month"]
    )
    assert question @ near > 0.5
    assert abs(question @ far) < 0.3


def test_blank_texts_are_all_the_same() -> None:
    vectors = FakeEmbedder(dimensions=2).embed(["", " \n", "?!"])
    assert vectors.tolist() == [[1, 0]] * 3


def test_another_model_has_other_vectors() -> None:
    one, two = (FakeEmbedder(model=model).embed(["a cat"]) for model in ("one", "two"))
    assert not np.allclose(one, two)


def test_it_counts_across_threads() -> None:
    embedder = FakeEmbedder()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: embedder.embed(["a", "b"]), range(200)))
    assert (embedder.calls, embedder.texts) == (200, 400)


def test_its_config_makes_it_again() -> None:
    embedder = FakeEmbedder(dimensions=7, model="other")
    assert embedder.config == {"provider": "fake", "dimensions": 7, "model": "other"}
    again = embedders.create(embedder.config)
    assert isinstance(again, FakeEmbedder)
    assert np.array_equal(again.embed(["a cat"]), embedder.embed(["a cat"]))


def test_it_refuses_no_dimensions() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        FakeEmbedder(dimensions=0)


def test_importing_it_does_not_import_numpy() -> None:
    modules = "import sys, vectorizer.testing.pytest_plugin as _; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", modules], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
