"""Whatever writers do and whatever befalls workers: in the end the copy is right.

VECTORIZER_STRESS_SECONDS and VECTORIZER_STRESS_SEED choose how long and which dice.
"""

from __future__ import annotations

import os
import random

import pytest
from stress import StressPlan, stress

_SECONDS = 60.0


@pytest.mark.parametrize("table", ["plain", "partitioned"])
def test_the_copy_is_right_after_everything_happened_at_once(table: str) -> None:
    seed = int(os.environ.get("VECTORIZER_STRESS_SEED") or random.SystemRandom().randrange(10**6))
    seconds = float(os.environ.get("VECTORIZER_STRESS_SECONDS") or _SECONDS)
    print(f"VECTORIZER_STRESS_SEED={seed} VECTORIZER_STRESS_SECONDS={seconds:g}")
    report = stress(StressPlan(seed=seed, seconds=seconds, partitioned=table == "partitioned"))
    print(report)
    assert not report.failures
    assert report.transactions
    assert report.batches
