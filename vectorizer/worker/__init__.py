"""The daemon: serves all vectorizers of a database from one process and one event loop.

::

    worker = Worker(url)
    await worker.run()  # until somebody calls worker.stop()

It sets no signal handlers, configures no logging and keeps nothing outside of the object; the
command line adds what a process of its own needs.
"""

from vectorizer.worker._options import WorkerOptions
from vectorizer.worker._worker import Worker

__all__ = ["Worker", "WorkerOptions"]
