"""The HTTP server for /metrics and /healthz, on the daemon's own loop: one request a connection, all of it bounded.

Nothing a peer does reaches the loop as an error, holds a connection past ``REQUEST_WITHIN_S``, or makes the daemon
build the page more often than once in ``PAGE_KEPT_S``.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

from devd.daemon.config import ListenAddress
from devd.daemon.errors import StartupError
from devd.daemon.metrics.http import MAX_HEAD_BYTES, Answer, BadRequestError, Request, read_request, told
from devd.daemon.metrics.text import CONTENT_TYPE

REQUEST_WITHIN_S = 5.0
"""From a connection's start to the last byte of its answer; then it is cut."""
MAX_CONNECTIONS = 16
"""A node has one or two scrapers; more connections are told 503."""
PAGE_KEPT_S = 1.0
"""How long a page is given out before it is built anew."""
CLOSE_WITHIN_S = 0.5
LEAVE_WITHIN_S = 1.0
"""How long an answered peer gets to hang up; what it still sends is thrown away, else the answer could be lost."""
MAX_LEFTOVER_BYTES = 64 * 1024

log = logging.getLogger("devd.metrics")


class MetricsServer:
    """Serves what ``build`` returns. Whoever starts it calls ``close``; ``within_s`` is there for tests to shorten."""

    def __init__(
        self, address: ListenAddress, build: Callable[[], Awaitable[str]], *, within_s: float = REQUEST_WITHIN_S
    ) -> None:
        self._within_s = within_s
        self._wanted = address
        self._build = build
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._building = asyncio.Lock()
        self._page: Answer | None = None
        self._page_until_s = 0.0

    @property
    def address(self) -> ListenAddress:
        """The address that is listened on; its port is the true one where 0 was asked for."""
        if self._server is None:
            return self._wanted
        return ListenAddress(self._wanted.host, self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises StartupError, which names the address, when it is not to be had."""
        listener = _listener(self._wanted)
        try:
            self._server = await asyncio.start_server(self._connected, sock=listener, limit=MAX_HEAD_BYTES)
        except BaseException:
            listener.close()
            raise
        log.info("metrics on http://%s/metrics", self.address, extra={"event": "metrics"})

    async def close(self) -> None:
        """Stop listening and cut every connection. Safe to call twice, and without a start."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), CLOSE_WITHIN_S)

    # ---- connections ------------------------------------------------------------------------------------------------

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            # Such a short answer goes straight to the kernel; nothing of it is kept here.
            writer.write(told(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections").encode())
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._within_s):
                await self._converse(reader, writer)
        except (TimeoutError, OSError):
            log.debug("a connection was cut: its peer is gone, or too slow")
        except Exception:  # a bug of ours must not end more than this connection
            log.exception("a request for metrics failed by a bug of devd")
        finally:
            # All that was to be sent has been sent, or there was no time for it.
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_request(reader)
        except BadRequestError as error:
            data = told(error.status, str(error)).encode()
        else:
            data = (await self._answer(request)).encode(with_body=request.method != "HEAD")
        # With no room to buffer, drain waits until the kernel has all of it.
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(data)
        await writer.drain()
        await _hang_up(reader, writer)

    # ---- answers ----------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Answer:
        if request.method not in {"GET", "HEAD"}:
            return told(HTTPStatus.METHOD_NOT_ALLOWED, allow="GET, HEAD")
        if request.path == "/healthz":
            return told(HTTPStatus.OK, "ok")
        if request.path == "/metrics":
            return await self._metrics()
        return told(HTTPStatus.NOT_FOUND, "there are /metrics and /healthz")

    async def _metrics(self) -> Answer:
        """Return the page, or what became of it: a failure is kept as well, so that it is logged once a second."""
        loop = asyncio.get_running_loop()
        async with self._building:
            if self._page is None or loop.time() >= self._page_until_s:
                self._page = await self._built()
                self._page_until_s = loop.time() + PAGE_KEPT_S
            return self._page

    async def _built(self) -> Answer:
        try:
            return Answer(HTTPStatus.OK, (await self._build()).encode("utf-8", "backslashreplace"), CONTENT_TYPE)
        except Exception:
            log.exception("the metrics cannot be built")
            return told(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics cannot be built; devd's log tells why")


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End our side and let the peer end its own: closing with something unread would reset the connection."""
    writer.write_eof()
    left = MAX_LEFTOVER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_WITHIN_S):
            while left > 0 and (data := await reader.read(left)):
                left -= len(data)


def _listener(address: ListenAddress) -> socket.socket:
    """Return a listening socket. Raises StartupError."""
    family = socket.AF_INET6 if address.is_v6 else socket.AF_INET
    both = address.host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((address.host, address.port), family=family, dualstack_ipv6=both)
    except OSError as error:
        more = "; another process listens there" if error.errno == errno.EADDRINUSE else ""
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StartupError(f"metrics.listen {address}: {reason}{more}") from error
