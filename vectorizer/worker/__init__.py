"""The daemon: serves all vectorizers of a database from one process and one event loop.

::

    worker = Worker(url)
    await worker.run()  # until somebody calls worker.stop()

It sets no signal handlers, configures no logging and keeps nothing outside of the object; the
command line adds what a process of its own needs. `Drain` is its counterpart that ends when
nothing is left: what `vectorizer run` does. With `vectorizer.metrics.Metrics` as its
observer, `serving_http` answers `/metrics`, `/healthz` and `/readyz`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vectorizer.worker._options import WorkerOptions

if TYPE_CHECKING:
    from vectorizer.worker._drain import Drain
    from vectorizer.worker._http import serving_http
    from vectorizer.worker._worker import Worker

__all__ = ["Drain", "Worker", "WorkerOptions", "serving_http"]

# The options are part of every configuration; the worker itself only of a command's.
_HOMES = {
    "Drain": "vectorizer.worker._drain",
    "Worker": "vectorizer.worker._worker",
    "serving_http": "vectorizer.worker._http",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
