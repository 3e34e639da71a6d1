"""`/metrics`, `/healthz` and `/readyz` of one worker, from a thread of their own.

A thread, so that a loop that is held up can be told from one that is well.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import asynccontextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from vectorizer.errors import ConfigurationError
from vectorizer.metrics import Metrics
from vectorizer.worker._worker import Worker

__all__ = ["serving_http"]

# A loop that did not go round for so long is stuck; connecting may take some of it.
_STUCK_SECONDS = 60.0
# What a scrape shows of the queues is at most so old, however many scrape.
_FRESH_SECONDS = 5.0
_SCRAPE_SECONDS = 5.0


@asynccontextmanager
async def serving_http(
    worker: Worker, metrics: Metrics, host: str, port: int
) -> AsyncIterator[int]:
    """Answer requests while the block runs; yields the port, which is another one for port 0.

    Raises ConfigurationError if the address cannot be listened on.
    """
    pages = _Pages(worker, metrics, asyncio.get_running_loop())
    try:
        server = ThreadingHTTPServer((host, port), lambda *given: _Handler(pages, *given))
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"cannot serve metrics on {host}:{port}: {error}; choose another port or host"
        ) from None
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="vectorizer-http", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


class _Pages:
    def __init__(self, worker: Worker, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._worker = worker
        self._metrics = metrics
        self._loop = loop
        self._refreshing = Lock()
        self._fresh_until = 0.0

    def healthz(self) -> tuple[HTTPStatus, dict[str, Any]]:
        seconds = self._worker.alive_seconds
        well = seconds < _STUCK_SECONDS
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        return status, {"alive": well, "seconds_since_last_round": round(seconds, 3)}

    def readyz(self) -> tuple[HTTPStatus, dict[str, Any]]:
        ready = self._worker.ready
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return status, {"ready": ready, "in_flight": self._worker.in_flight}

    def metrics(self, accept: str) -> tuple[str, bytes]:
        with self._refreshing:
            if time.monotonic() > self._fresh_until and self._worker.ready:
                self._refresh()
        return self._metrics.text(accept)

    def _refresh(self) -> None:
        status = asyncio.run_coroutine_threadsafe(self._worker.status(), self._loop)
        try:
            self._metrics.show(status.result(_SCRAPE_SECONDS))
        except (FutureTimeoutError, asyncio.CancelledError):
            status.cancel()
        except Exception:  # noqa: BLE001 - no database: what this process has counted is shown
            self._metrics.show(())
        self._fresh_until = time.monotonic() + _FRESH_SECONDS


class _Handler(BaseHTTPRequestHandler):
    server_version = "vectorizer"
    sys_version = ""

    def __init__(self, pages: _Pages, *given: Any) -> None:
        self._pages = pages
        super().__init__(*given)

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                kind, body = self._pages.metrics(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, kind, body)
            case "/healthz":
                self._answer_json(*self._pages.healthz())
            case "/readyz":
                self._answer_json(*self._pages.readyz())
            case _:
                self._answer_json(
                    HTTPStatus.NOT_FOUND, {"pages": ["/metrics", "/healthz", "/readyz"]}
                )

    def _answer_json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(value).encode() + b"\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: a probe every second is no news."""
