"""A TCP proxy before PostgreSQL that loses, cuts and stalls connections on demand.

::

    with Proxy(url) as proxy:
        worker = Vectorizer(proxy.url, ...)
        proxy.strike(7, proxy.swallow)   # at the 7th thing the client sends from now on

Each thing that a client sends (a statement with its parameters, mostly) is counted, whatever
the connection.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Proxy"]

_CHUNK = 1 << 20
# BackendKeyData: the process and the secret for cancelling.
_KEY_DATA = re.compile(rb"K\x00\x00\x00\x0c(....)....Z\x00\x00\x00\x05", re.DOTALL)


class _Link:
    """One client, its server, and what goes between them."""

    def __init__(self, client: Any, server: Any) -> None:
        self.from_client, self.to_client = client
        self.from_server, self.to_server = server
        self.deaf = False
        """Whether the server's answers are thrown away."""
        self.pid = 0
        """The server's process for it."""

    def close(self) -> None:
        for stream in (self.to_client, self.to_server):
            stream.close()

    def abort(self) -> None:
        for stream in (self.to_client, self.to_server):
            stream.transport.abort()


Strike: TypeAlias = Callable[[_Link, bytes], Awaitable[None]]


class Proxy:
    """Listens on a loopback port for the server of a connection string."""

    def __init__(self, url: str) -> None:
        self._target = conninfo_to_dict(url)
        self.url = ""
        self.sent = 0
        """How many things clients have sent since the last `strike`."""
        self.struck = threading.Event()
        """Set when the strike has happened."""
        self._strike_at: int | bytes | None = None
        self._strike: Strike = self.drop
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._open: asyncio.Event
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        port = self._do(self._listen())
        self.url = make_conninfo(
            **{**self._target, "host": "127.0.0.1", "port": port, "sslmode": "disable"}
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # What a test asks for

    def strike(self, at: int | bytes | None, how: Strike | None = None) -> None:
        """Count anew, and treat one thing a client sends in a special way.

        It is the `at`-th from now on, or the first that contains the bytes `at`.
        """

        async def arm() -> None:
            self.sent, self._strike_at = 0, at
            self._strike = how or self.drop
            self.struck.clear()

        self._do(arm())

    def cut(self) -> None:
        """Break all connections there are; the next ones work."""

        async def cut() -> None:
            for link in self._links:
                link.abort()

        self._do(cut())

    def stall(self) -> None:
        """Pass nothing on any more, in either direction, and tell nobody."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def go_on(self) -> None:
        """End a stall."""
        self._loop.call_soon_threadsafe(self._open.set)

    # Ways to strike

    async def drop(self, link: _Link, _data: bytes) -> None:
        """Break the connection before the server hears of it."""
        link.abort()

    async def swallow(self, link: _Link, data: bytes) -> None:
        """Let the server do it, but break the connection before the client knows."""
        link.deaf = True
        link.to_server.write(data)
        await link.to_server.drain()
        # The end of input makes the server hang up after it has done what came before.
        link.to_server.write_eof()

    async def freeze(self, _link: _Link, _data: bytes) -> None:
        """Stall from here on, everybody."""
        self._open.clear()

    # Inside

    def _do(self, step: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(step, self._loop)
        return done.result(timeout=20)

    async def _listen(self) -> int:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0.01)  # transports close in the loop's next rounds

    async def _connect(self) -> Any:
        host, port = str(self._target.get("host", "")), self._target.get("port", 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host or "127.0.0.1", int(str(port)))

    async def _serve(self, reader: Any, writer: Any) -> None:
        await self._open.wait()
        link = _Link((reader, writer), await self._connect())
        self._links.add(link)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(self._requests(link), self._answers(link))
        finally:
            self._links.discard(link)
            link.close()

    async def _requests(self, link: _Link) -> None:
        while data := await link.from_client.read(_CHUNK):
            self.sent += 1
            if self._is_struck(data):
                self._strike_at = None
                await self._strike(link, data)
                self.struck.set()
                if self._open.is_set():
                    return
            await self._open.wait()
            link.to_server.write(data)
            await link.to_server.drain()
        link.to_server.close()

    def _is_struck(self, data: bytes) -> bool:
        at = self._strike_at
        return at in data if isinstance(at, bytes) else at == self.sent

    async def _answers(self, link: _Link) -> None:
        while data := await link.from_server.read(_CHUNK):
            if not link.pid and (found := _KEY_DATA.search(data)):
                link.pid = int.from_bytes(found[1], "big")
            await self._open.wait()
            if not link.deaf:
                link.to_client.write(data)
                await link.to_client.drain()
        link.to_client.close()
