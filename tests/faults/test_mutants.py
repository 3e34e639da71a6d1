"""The stress is worth something only if it finds our code broken: three mutants must fail it."""

from __future__ import annotations

from dataclasses import replace

import mutants
import pytest
from stress import StressPlan, stress
from writers import Keys

# A few rows that everybody changes all the time, and a model that leaves room for that.
_CROWDED = StressPlan(
    seed=1,
    seconds=8,
    writers=2,
    workers=2,
    keys=Keys(hot=4, few=8, many=0),
    bulk=False,
    pace=0.02,
    batch_sizes=(3, 8),
    kill=0,
    stop=0,
    terminate=0,
    verify_pause=0.2,
    moods={"slow": 1.0, "long": 0.0, "unavailable": 0.0},
)
# Workers that sleep beyond a short lease and then go on as if nothing had been.
_ZOMBIES = replace(_CROWDED, workers=3, lease_seconds=0.4, moods={**_CROWDED.moods, "stop": 0.2})
_PLANS = {"no_fence": _ZOMBIES, "ack_by_key": _CROWDED, "claim_and_read": _CROWDED}
_SEEDS = (1, 2, 3)


@pytest.mark.parametrize("mutant", mutants.NAMES)
def test_the_stress_finds_a_mutant(mutant: str) -> None:
    for seed in _SEEDS:
        report = stress(replace(_PLANS[mutant], seed=seed, mutant=mutant))
        print(report)
        if report.mismatches:
            return
    pytest.fail(f"{mutant} survived")


@pytest.mark.parametrize("plan", [_CROWDED, _ZOMBIES], ids=["crowded", "zombies"])
def test_what_finds_the_mutants_does_not_find_fault_with_our_code(plan: StressPlan) -> None:
    report = stress(replace(plan, seconds=6))
    print(report)
    assert not report.failures
    assert report.batches
