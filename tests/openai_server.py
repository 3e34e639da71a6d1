"""A small server of OpenAI's embeddings protocol on a loopback port, with faults on demand.

For any test that needs a model behind real HTTP, also from other processes::

    with serve(dimensions=8) as server:
        embedder = OpenAIEmbedder("test", dimensions=8, base_url=server.url)
        server.script(fail(429, headers={"Retry-After": "1"}), reset)
        embedder.embed(["a"])                   # 429, a reset, then the right answer
        assert len(server.requests) == 3
        assert server.requests[2].texts == ["a"]

Without a script it always answers rightly: `vector(text, dimensions)` is the vector of a
text, so a test knows what must be stored. `server.script(*faults)` is used up one fault a
request; `then=` is what follows, for ever. A fault is any function of the recorded request
and of the right answer that returns what to send, so a rule is a function too::

    def poison(request, items):
        rejected = any("poison" in text for text in request.texts)
        return (fail(400, "no") if rejected else answer)(request, items)

    server.script(then=poison)

`hold()` keeps a request waiting until the test releases it or the client goes away; tests
wait on its events and never sleep.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import struct
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = [
    "Fault",
    "Items",
    "Made",
    "Recorded",
    "Server",
    "after",
    "altered",
    "answer",
    "duplicated_index",
    "fail",
    "hold",
    "limited",
    "poison",
    "raw",
    "reset",
    "serve",
    "short_of_one",
    "shuffled",
    "small",
    "truncated",
    "vector",
    "with_nan",
    "wrong_dimension",
]

Items: TypeAlias = "list[tuple[int, NDArray[np.float32]]]"
"""An answer before it is encoded: (index, vector) in the order they are sent."""


@dataclass(frozen=True)
class Recorded:
    """One request as it came in; `base64` is how the answer to it is encoded."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    port: int
    """The client's port: two requests with the same one shared a connection."""
    query: Mapping[str, str]
    base64: bool
    at: float = field(default_factory=time.monotonic)

    @property
    def texts(self) -> list[str]:
        return list(self.body["input"])


Fault: TypeAlias = "Callable[[Recorded, Items], ASGIApp]"
Made: TypeAlias = "Callable[[str, int], NDArray[np.float32]]"


def vector(text: str, dimensions: int) -> NDArray[np.float32]:
    """Return the unit vector that the server gives for `text`, the same in every process."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "little"))
    values = random.standard_normal(dimensions, dtype=np.float32)
    return np.divide(values, np.linalg.norm(values), dtype=np.float32)


# Faults


def answer(request: Recorded, items: Items) -> ASGIApp:
    """Send `items` as they are: the right answer, to stand between faults in a script."""
    data = [
        {"object": "embedding", "index": index, "embedding": _encode(values, request)}
        for index, values in items
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    model = request.body.get("model")
    payload = {"object": "list", "data": data, "model": model, "usage": usage}
    return Response(json.dumps(payload), media_type="application/json")


def fail(
    status: int,
    message: str = "the message of the provider",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """Answer with an error of OpenAI's form."""
    error = {"message": message, "type": code, "param": None, "code": code}
    return raw(json.dumps({"error": error}), status=status, headers=headers)


def raw(
    body: str,
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """Answer with `body` as it is."""
    return lambda _request, _items: Response(body, status, headers, media_type)


def altered(edit: Callable[[Items], Items]) -> Fault:
    """Answer with vectors that `edit` has changed."""
    return lambda request, items: answer(request, edit(items))


short_of_one = altered(lambda items: items[:-1])
wrong_dimension = altered(lambda items: [(index, values[:-1]) for index, values in items])
with_nan = altered(lambda items: [(index, values * np.float32("nan")) for index, values in items])
shuffled = altered(lambda items: items[::-1])
duplicated_index = altered(lambda items: [(0, values) for _, values in items])


def truncated(request: Recorded, items: Items) -> ASGIApp:
    """Promise the whole body, send half of it, hang up."""
    whole = answer(request, items)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def cut(message: Any) -> None:
            if message["type"] == "http.response.body":
                half = message["body"][: len(message["body"]) // 2]
                message = {**message, "body": half, "more_body": True}
            await send(message)

        await whole(scope, receive, cut)
        scope["state"]["transport"].close()
        await _disconnected(receive)

    return app


def reset(_request: Recorded, _items: Items) -> ASGIApp:
    """Answer with a TCP reset."""

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        transport = scope["state"]["transport"]
        # Lingering for zero seconds makes the kernel send RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
        await _disconnected(receive)

    return app


class hold:  # noqa: N801 - stands among the functions of a script
    """Keep a request waiting until `release()`, or until the client hangs up."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        """Set when a request has arrived here."""
        self._released = threading.Event()
        self._wakers: list[Callable[[], object]] = []

    def release(self) -> None:
        """Let the right answer go, now and for all requests to come."""
        self._released.set()
        for wake in self._wakers:
            wake()

    def __call__(self, request: Recorded, items: Items) -> ASGIApp:
        whole = answer(request, items)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            loop, woken = asyncio.get_running_loop(), asyncio.Event()
            self._wakers.append(lambda: loop.call_soon_threadsafe(woken.set))
            self.reached.set()
            if self._released.is_set() or await _first(woken.wait(), _disconnected(receive)) == 0:
                await whole(scope, receive, send)

        return app


class limited:  # noqa: N801 - stands among the functions of a script
    """Answer at most `per_second` requests in any second, the others with 429.

    `retry_after` is the header of that name. `passed` counts the right answers.
    """

    def __init__(self, per_second: int, retry_after: str | None = None) -> None:
        self.passed: list[float] = []
        self._per_second = per_second
        self._headers = {} if retry_after is None else {"Retry-After": retry_after}

    def __call__(self, request: Recorded, items: Items) -> ASGIApp:
        latest = self.passed[-self._per_second :]
        if len(latest) == self._per_second and request.at - latest[0] < 1.0:
            return fail(429, "slow down", headers=self._headers)(request, items)
        self.passed.append(request.at)
        return answer(request, items)


def small(max_texts: int, max_bytes: int, max_text_bytes: int) -> Fault:
    """Refuse what is larger, in OpenAI's words."""

    def fault(request: Recorded, items: Items) -> ASGIApp:
        sizes = [len(text.encode()) for text in request.texts]
        if len(sizes) > max_texts:
            return fail(400, f"array too long. Expected {max_texts} or less")(request, items)
        if max(sizes) > max_text_bytes:
            message = f"This model's maximum context length is {max_text_bytes} tokens"
            return fail(400, message)(request, items)
        if sum(sizes) > max_bytes:
            message = f"Requested {sum(sizes)} tokens, max {max_bytes} tokens per request"
            return fail(400, message, code="max_tokens_per_request")(request, items)
        return answer(request, items)

    return fault


def poison(word: str) -> Fault:
    """Refuse requests with a text that holds `word`."""

    def fault(request: Recorded, items: Items) -> ASGIApp:
        bad = any(word in text for text in request.texts)
        return (fail(400, "your input is not allowed") if bad else answer)(request, items)

    return fault


def after(seconds: float, then: Fault = answer) -> Fault:
    """Do `then` after so many seconds, without holding up other requests."""

    def fault(request: Recorded, items: Items) -> ASGIApp:
        inner = then(request, items)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(seconds)
            await inner(scope, receive, send)

        return app

    return fault


# The server


class Server:
    """A running server: its address, its script and what it has been asked."""

    def __init__(self, dimensions: int, *, floats_only: bool, made: Made = vector) -> None:
        self.url = ""
        self.requests: list[Recorded] = []
        self._dimensions = dimensions
        self._floats_only = floats_only
        self._made = made
        self._script: deque[Fault] = deque()
        self._then: Fault = answer

    def script(self, *faults: Fault, then: Fault = answer) -> None:
        """Replace the script: one fault a request, and `then` for every later one."""
        self._script = deque(faults)
        self._then = then

    def reset(self) -> None:
        """Forget script and requests, so that one server can serve many tests."""
        self.script()
        self.requests = []

    async def embeddings(self, request: Request) -> ASGIApp:
        recorded = await self._record(request)
        self.requests.append(recorded)
        dimensions = recorded.body.get("dimensions", self._dimensions)
        items = [(i, self._made(text, dimensions)) for i, text in enumerate(recorded.texts)]
        fault = self._script.popleft() if self._script else self._then
        return fault(recorded, items)

    async def _record(self, request: Request) -> Recorded:
        body = await request.json()
        base64 = body.get("encoding_format") == "base64" and not self._floats_only
        port = request.client.port if request.client else 0
        return Recorded(
            body=body,
            headers=dict(request.headers),
            port=port,
            query=dict(request.query_params),
            base64=base64,
        )


@contextmanager
def serve(
    *, dimensions: int = 8, floats_only: bool = False, made: Made = vector
) -> Iterator[Server]:
    """Run a server on a free loopback port; `server.url` is the client's base URL.

    Vectors have `dimensions` components unless the request asks for another number. With
    `floats_only` it answers in lists of floats whatever encoding is asked for, as many
    compatible servers do. `made` makes the vector of a text. At the end all connections are
    closed and the thread has ended.
    """
    server = Server(dimensions, floats_only=floats_only, made=made)
    routes = [Route("/v1/embeddings", server.embeddings, methods=["POST"])]
    runner = _Runner(_config(Starlette(routes=routes)))
    # Bound and listening here, so that no test can come too early or take the port.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread = threading.Thread(target=runner.run, args=([listener],), name="openai-server")
        thread.start()
        try:
            yield server
        finally:
            runner.up.wait()
            runner.should_exit = runner.force_exit = True
            thread.join()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=3600,
    )


class _Runner(uvicorn.Server):
    """Says when it is up: an exit asked for earlier would leave the listener open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class _Protocol(H11Protocol):
    """Shows the connection to the faults, which may cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does it for sockets that name their protocol; the head and the body of an
        # answer are two packets, and without it the second one comes 40 ms later.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}


def _encode(values: NDArray[np.float32], request: Recorded) -> str | list[float]:
    if request.base64:
        return base64.b64encode(values.astype("<f4").tobytes()).decode()
    return [float(value) for value in values]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(*waits: Any) -> int:
    """Wait for the first of `waits` to end and return which it was."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return tasks.index(done.pop())
