"""Whatever a configuration says, it is read or refused in our words."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorizer.config import Config, VectorizerConfig, load
from vectorizer.errors import ConfigurationError
from vectorizer.worker import WorkerOptions

_KEYS = sorted({
    *Config.model_fields, *VectorizerConfig.model_fields, *WorkerOptions.__dataclass_fields__,
    "url", "schema", "format", "level", "host", "port",
})  # fmt: skip
# Text that TOML can hold: no surrogates, no control characters.
_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
_NAMES = st.sampled_from(_KEYS) | _TEXT
_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | _TEXT
    | st.datetimes() | st.sampled_from(["minilm", "30d", "hnsw", "{chunk}", "* * * * *"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_SECTIONS = st.dictionaries(
    st.sampled_from(sorted(Config.model_fields)) | _TEXT,
    st.dictionaries(_NAMES, _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=6), max_size=6)
    | _VALUES,
    max_size=4,
)


def read(file: Path | None, environment: dict[str, str]) -> None:
    try:
        load(file, environment, {})
    except ConfigurationError as error:
        assert str(error).strip()  # noqa: PT017 - it may, and it may not


@given(_SECTIONS)
@settings(max_examples=100, deadline=None)
def test_any_file(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectorizer.toml"
        file.write_text(tomlkit.dumps(content), encoding="utf-8")
        read(file, {})


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectorizer.toml"
        file.write_bytes(content)
        read(file, {})


_VARIABLES = st.sampled_from([
    *(f"VECTORIZER_WORKER_{name}".upper() for name in WorkerOptions.__dataclass_fields__),
    *(f"VECTORIZER_VECTORIZERS__BLOG__{name}".upper() for name in VectorizerConfig.model_fields),
    "VECTORIZER_METRICS_PORT", "VECTORIZER_LOG_FORMAT", "VECTORIZER_DATABASE_SCHEMA",
    "VECTORIZER_URL", "VECTORIZER_VECTORIZERS__", "VECTORIZER_VECTORIZERS__A__", "VECTORIZER_",
])  # fmt: skip


@given(st.dictionaries(_VARIABLES, _TEXT | st.sampled_from(["[", "{", "1e9", "nan", "[1, 2]"])))
@settings(max_examples=100, deadline=None)
def test_any_environment(environment: dict[str, str]) -> None:
    read(None, environment)
