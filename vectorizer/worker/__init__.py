"""The daemon: serves all vectorizers of a database from one process and one event loop.

::

    worker = Worker(url)
    await worker.run()  # until somebody calls worker.stop()

It sets no signal handlers, configures no logging and keeps nothing outside of the object; the
command line adds what a process of its own needs. With `Metrics` as its observer, `serving_http`
answers `/metrics`, `/healthz` and `/readyz`.
"""

from vectorizer.worker._http import serving_http
from vectorizer.worker._options import WorkerOptions
from vectorizer.worker._worker import Worker

__all__ = ["Worker", "WorkerOptions", "serving_http"]
