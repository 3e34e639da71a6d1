"""Models shared by all vectorizers of a worker that are configured alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

from vectorizer.embedders import create
from vectorizer.types import JSON, Embedder

__all__ = ["Embedders"]


class Embedders:
    """Makes each model once: a hundred vectorizers with one model need its memory once."""

    def __init__(self) -> None:
        self._made: dict[str, asyncio.Task[Embedder]] = {}

    async def get(self, config: Mapping[str, JSON]) -> Embedder:
        """Return the embedder of a configuration; raise ConfigurationError if it has none."""
        name = _name(config)
        if name not in self._made:
            # Loading a model may take seconds in which the others want to be served.
            self._made[name] = asyncio.create_task(asyncio.to_thread(create, config))
        try:
            return await asyncio.shield(self._made[name])
        except Exception:
            self._made.pop(name, None)  # an extra may be installed, a file put right
            raise

    def keep_only(self, configs: Iterable[Mapping[str, JSON]]) -> None:
        """Forget the models that no vectorizer uses any more."""
        used = {_name(config) for config in configs}
        self._made = {name: made for name, made in self._made.items() if name in used}


def _name(config: Mapping[str, JSON]) -> str:
    return json.dumps(config, sort_keys=True)
