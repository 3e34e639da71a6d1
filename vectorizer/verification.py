"""What a verification found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vectorizer.types import JSON

__all__ = ["Verification"]

_SAMPLES = 10


@dataclass(slots=True)
class Verification:
    """Source and destination compared, key by key.

    checked: source rows looked at; pending: keys that differ but wait in the queue;
    dead: keys that differ and were given up; defects: how many keys by kind (missing, stale,
    orphaned, duplicated, wrong_chunk_count, wrong_model, wrong_partition); samples: up to ten
    keys of each kind; repaired: keys queued for repair; unknown: what could not be checked.
    """

    checked: int = 0
    pending: int = 0
    dead: int = 0
    defects: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[JSON]] = field(default_factory=dict)
    repaired: int = 0
    unknown: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there is no defect; what is pending or dead is not one."""
        return not self.defects

    def add(self, findings: Iterable[Mapping[str, JSON]]) -> list[str]:
        """Count findings of a range; return the keys that are defects, as JSON text."""
        defective: list[str] = []
        for finding in findings:
            if finding["verdict"] == "defect":
                defective.append(finding["key"])
                self.defects[finding["defect"]] += 1
                samples = self.samples.setdefault(finding["defect"], [])
                if len(samples) < _SAMPLES:
                    samples.append(json.loads(finding["key"]))
            elif finding["verdict"] == "dead":
                self.dead += 1
            else:
                self.pending += 1
        return defective
