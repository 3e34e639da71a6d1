from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vectorizer.limits import batch_rows


class Model:
    model = "model"
    dimensions = 3

    def __init__(self, **limits: int) -> None:
        self.__dict__.update(limits)

    def embed(self, texts: Sequence[str]) -> Any:
        return np.zeros((len(texts), self.dimensions), np.float32)


@pytest.mark.parametrize(
    ("limits", "rows"),
    [
        ({}, 200),
        ({"concurrency": 64}, 200),
        ({"max_texts": 512}, 200),
        ({"max_texts": 32}, 192),
        ({"max_texts": 128, "concurrency": 16}, 640),
        ({"max_texts": 2048, "concurrency": 8}, 768),
    ],
)
def test_a_batch_fills_the_calls_of_its_embedder(limits: dict[str, int], rows: int) -> None:
    assert batch_rows(Model(**limits)) == rows
