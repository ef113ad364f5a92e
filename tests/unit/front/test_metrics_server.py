"""The HTTP server for the metrics, by real sockets: what it answers, and what bad peers cannot do to it."""

import asyncio
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from devd.daemon.config import ListenAddress
from devd.daemon.errors import StartupError
from devd.daemon.metrics.http import MAX_HEAD_BYTES
from devd.daemon.metrics.server import MAX_CONNECTIONS, PAGE_KEPT_S, MetricsServer
from devd.daemon.metrics.text import CONTENT_TYPE

DEADLINE_S = 20.0
"""How long a test waits for what must come."""
GET = b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"
ANY_PORT = ListenAddress("127.0.0.1", 0)


class World:
    """A served page and what happened around it."""

    def __init__(self, address: ListenAddress, within_s: float) -> None:
        self.server = MetricsServer(address, self.build, within_s=within_s)
        self.page = "devd_up 1\n"
        self.built = 0
        self.error: Exception | None = None
        self.loop_errors: list[str] = []

    async def build(self) -> str:
        """Return the page, or raise what the test planted."""
        self.built += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.page


@dataclass(frozen=True)
class Reply:
    """An answer taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes


@asynccontextmanager
async def world(address: ListenAddress = ANY_PORT, within_s: float = DEADLINE_S) -> AsyncIterator[World]:
    """Serve; at the end nothing is left open, and nothing has reached the loop as an error."""
    one = World(address, within_s)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: one.loop_errors.append(str(context)))
    await one.server.start()
    port = one.server.address.port
    try:
        yield one
    finally:
        await one.server.close()
    assert one.loop_errors == []
    assert one.server._tasks == set()
    await eventually(lambda: _sockets(port) == [], "all sockets closed")


def play(work: Callable[[World], Awaitable[None]], within_s: float = DEADLINE_S) -> None:
    """Run ``work`` beside a server."""

    async def scene() -> None:
        async with world(within_s=within_s) as one:
            await work(one)

    asyncio.run(scene())


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.005)


def _sockets(port: int) -> list[object]:
    """Return this process's sockets with a port at either end, those of its clients too."""
    found = psutil.Process().net_connections(kind="tcp")
    # An end that is not connected is an empty tuple.
    return [one for one in found if port in (*one.laddr[1:], *one.raddr[1:])]


async def send(one: World, data: bytes, *, end: bool = False) -> bytes:
    """Send bytes on a fresh connection (and end it), and return all that comes back."""
    address = one.server.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    finally:
        writer.transport.abort()


async def ask(one: World, data: bytes) -> Reply:
    """Return the answer to some bytes."""
    return taken_apart(await send(one, data))


def taken_apart(answer: bytes) -> Reply:
    """Return an answer's parts; fails when it is no HTTP."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    assert separator, answer
    first, *lines = head.decode("ascii").split("\r\n")
    version, status, phrase = first.split(" ", 2)
    assert version == "HTTP/1.1"
    assert phrase
    return Reply(int(status), dict(line.split(": ", 1) for line in lines), body)


def test_page_is_served_whole() -> None:
    """GET /metrics returns the page with its type and length, and ends the connection."""

    async def work(one: World) -> None:
        one.page = "ä 1\n"
        reply = await ask(one, GET)
        assert reply.status == 200
        assert reply.body.decode() == one.page
        assert reply.headers == {
            "Content-Type": CONTENT_TYPE,
            "Content-Length": str(len(one.page.encode())),
            "Connection": "close",
        }

    play(work)


def test_long_page_is_served_whole() -> None:
    """A page larger than every buffer on the way arrives whole."""

    async def work(one: World) -> None:
        one.page = "devd_up 1\n" * 2_000_000
        reply = await ask(one, GET)
        assert len(reply.body) == len(one.page)

    play(work)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.0", 200),
        (b"GET /metrics?debug=1 HTTP/1.1", 200),
        (b"GET /healthz HTTP/1.1", 200),
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/ HTTP/1.1", 404),
        (b"GET /../etc/passwd HTTP/1.1", 404),
        (b"GET * HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"get /metrics HTTP/1.1", 405),
        (b"OPTIONS * HTTP/1.1", 405),
        (b"GET /metrics HTTP/2.0", 400),
        (b"GET /metrics", 400),
        (b"GET  /metrics HTTP/1.1", 400),
        (b"GET /met rics HTTP/1.1", 400),
        (b"GET /m\xc3\xa4trics HTTP/1.1", 400),
        (b" GET /metrics HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"", 400),
    ],
)
def test_request_lines(request_line: bytes, status: int) -> None:
    """Right requests are answered, unknown paths are 404, other methods 405, everything else 400."""

    async def work(one: World) -> None:
        reply = await ask(one, request_line + b"\r\nHost: node\r\n\r\n")
        assert reply.status == status
        assert len(reply.body) == int(reply.headers["Content-Length"])
        assert reply.headers["Connection"] == "close"
        assert ("Allow" in reply.headers) == (status == 405)

    play(work)


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz", b"/nowhere"])
def test_head_is_get_without_its_body(path: bytes) -> None:
    """HEAD has the headers of GET, its length too, and no body."""

    async def work(one: World) -> None:
        get = await ask(one, b"GET " + path + b" HTTP/1.1\r\n\r\n")
        head = await ask(one, b"HEAD " + path + b" HTTP/1.1\r\n\r\n")
        assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
        assert get.body

    play(work)


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES + 1, 10 * MAX_HEAD_BYTES, 1_000_000])
@pytest.mark.parametrize("form", [b"GET /%s HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nA: %s\r\n\r\n", b"%s"])
def test_too_much_is_told(form: bytes, size: int) -> None:
    """A request line or headers beyond the limit are answered 431, and the peer gets to read it."""

    async def work(one: World) -> None:
        reply = await ask(one, form % (b"a" * size))
        assert reply.status == 431

    play(work)


def test_many_headers_are_too_much() -> None:
    """The limit is on all headers together; what is just within it is served."""

    async def work(one: World) -> None:
        line = b"GET /healthz HTTP/1.1\r\n"
        fits = b"A: b\r\n" * ((MAX_HEAD_BYTES - len(line) - 2) // 6)
        assert (await ask(one, line + fits + b"\r\n")).status == 200
        assert (await ask(one, line + fits + b"A: b\r\n\r\n")).status == 431

    play(work)


def test_body_is_thrown_away() -> None:
    """A request with a long body gets its answer, though the body is never read as anything."""

    async def work(one: World) -> None:
        body = b"x" * 50_000
        reply = await ask(one, b"POST /metrics HTTP/1.1\r\nContent-Length: 50000\r\n\r\n" + body)
        assert reply.status == 405
        assert (await ask(one, GET + body)).status == 200

    play(work)


@pytest.mark.parametrize("data", [b"", b"GET", b"GET /metrics HTTP/1.1\r\nHost: no"])
def test_peer_that_leaves_in_the_middle_is_told(data: bytes) -> None:
    """A peer that ends its side before its request is whole gets 400."""

    async def work(one: World) -> None:
        assert taken_apart(await send(one, data, end=True)).status == 400

    play(work)


def test_peers_that_reset_do_no_harm() -> None:
    """Peers that reset the connection at any point leave the server as it was."""

    async def work(one: World) -> None:
        for data in (b"", b"GE", GET[:30], GET) * 5:
            _, writer = await asyncio.open_connection(one.server.address.host, one.server.address.port)
            writer.write(data)
            writer.transport.abort()
        assert (await ask(one, GET)).status == 200
        await eventually(lambda: not one.server._tasks, "the end of all connections")

    play(work)


def test_garbage_never_reaches_the_loop() -> None:
    """Random bytes, some of them near to HTTP, are answered or cut, and nothing else happens."""
    rng = random.Random(20)  # noqa: S311 - noise, the same in each run
    parts = [b"GET", b" ", b"/metrics", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b"\0", b":", b"Host: x", b"HEAD"]

    def noise() -> bytes:
        pieces = (rng.choice([rng.choice(parts), rng.randbytes(rng.randrange(20))]) for _ in range(rng.randrange(12)))
        return b"".join(pieces)

    async def work(one: World) -> None:
        for _ in range(200):
            answer = await send(one, noise(), end=True)
            assert taken_apart(answer).status in {200, 400, 404, 405}
        assert (await ask(one, GET)).status == 200

    play(work)


def test_slow_peers_are_cut() -> None:
    """A peer that sends nothing, and one that sends a byte now and then, are cut at the deadline; others are served."""
    within_s = 1.5  # and not less: the peer that is served has as long, on a busy machine too

    async def drip(one: World) -> float:
        began_s = time.monotonic()
        reader, writer = await asyncio.open_connection(one.server.address.host, one.server.address.port)
        ended = asyncio.ensure_future(reader.read())
        try:
            for byte in b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
                if (await asyncio.wait([ended], timeout=0.05))[0]:
                    break
                writer.write(bytes([byte]))
            assert ended.done()
            assert ended.exception() is not None or ended.result() == b""
        finally:
            writer.transport.abort()
        return time.monotonic() - began_s

    async def silence(one: World) -> float:
        began_s = time.monotonic()
        with suppress(ConnectionError):  # cut is cut
            assert await send(one, b"") == b""
        return time.monotonic() - began_s

    async def work(one: World) -> None:
        slow = [asyncio.ensure_future(drip(one)), asyncio.ensure_future(silence(one))]
        await eventually(lambda: len(one.server._tasks) == 2, "both connections")
        assert (await ask(one, GET)).status == 200
        for took_s in await asyncio.gather(*slow):
            assert within_s * 0.9 < took_s < DEADLINE_S

    play(work, within_s)


def test_peer_that_does_not_read_is_cut() -> None:
    """A peer that asks for a long page and never reads it is cut at the deadline, and its memory is given back."""

    async def work(one: World) -> None:
        one.page = "x" * 30_000_000
        with socket.create_connection((one.server.address.host, one.server.address.port)) as lazy:
            lazy.setblocking(False)  # noqa: FBT003 - the standard library's signature
            lazy.sendall(GET)
            await eventually(lambda: one.built == 1, "the page")
            await eventually(lambda: not one.server._tasks, "the cut")
        one.page = "short 1\n"
        assert (await ask(one, b"GET /healthz HTTP/1.1\r\n\r\n")).status == 200

    play(work, within_s=1.5)


def test_more_connections_than_allowed_are_turned_away() -> None:
    """Beyond the limit a connection gets 503 at once; when the others have left, the next one is served."""

    async def work(one: World) -> None:
        address = one.server.address
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(MAX_CONNECTIONS)]
        await eventually(lambda: len(one.server._tasks) == MAX_CONNECTIONS, "all connections")
        for _ in range(3):
            # The request itself is not waited for: it could be lost in a reset after the answer.
            assert taken_apart(await send(one, b"")).status == 503
        for reader, writer in held[:-1]:
            writer.write(GET)
            assert taken_apart(await asyncio.wait_for(reader.read(), DEADLINE_S)).status == 200
            writer.transport.abort()
        await eventually(lambda: len(one.server._tasks) == 1, "their end")
        assert (await ask(one, GET)).status == 200
        held[-1][1].transport.abort()

    play(work)


def test_page_is_built_once_a_second() -> None:
    """However often it is asked for, the page is built anew only when it is a second old."""

    async def work(one: World) -> None:
        began_s = time.monotonic()
        replies = await asyncio.gather(*(ask(one, GET) for _ in range(MAX_CONNECTIONS // 2)))
        replies += [await ask(one, GET) for _ in range(50)]
        took_s = time.monotonic() - began_s
        assert {reply.body for reply in replies} == {b"devd_up 1\n"}
        assert 1 <= one.built <= 1 + took_s / PAGE_KEPT_S
        one.page = "devd_up 2\n"
        end_s = time.monotonic() + DEADLINE_S
        while (await ask(one, GET)).body != b"devd_up 2\n":
            assert time.monotonic() < end_s

    play(work)


def test_head_and_health_build_no_page_of_their_own() -> None:
    """/healthz and refused requests cost no page."""

    async def work(one: World) -> None:
        for request in (b"GET /healthz", b"GET /nowhere", b"POST /metrics"):
            await ask(one, request + b" HTTP/1.1\r\n\r\n")
        assert one.built == 0

    play(work)


def test_failing_page_is_told_and_passes(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in building the page is 500 and one log record a second, /healthz goes on, and a cured page is served."""

    async def work(one: World) -> None:
        one.error = KeyError("lost")
        replies = [await ask(one, GET) for _ in range(10)]
        assert {reply.status for reply in replies} == {500}
        assert b"lost" not in replies[0].body
        assert (await ask(one, b"GET /healthz HTTP/1.1\r\n\r\n")).status == 200
        logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(logged) == one.built
        one.error = None
        end_s = time.monotonic() + DEADLINE_S
        while (await ask(one, GET)).status != 200:
            assert time.monotonic() < end_s

    play(work)


def test_taken_port_is_an_error_that_names_it() -> None:
    """Where another listens, the start fails and says which address it is, and why."""

    async def scene() -> None:
        async with world() as one:
            taken = one.server.address
            with pytest.raises(StartupError, match=rf"metrics\.listen 127\.0\.0\.1:{taken.port}: .*in use.*another"):
                await MetricsServer(taken, one.build).start()

    asyncio.run(scene())


def test_address_of_no_interface_is_an_error_that_names_it() -> None:
    """An address this machine has not is an error at the start."""
    far = ListenAddress("192.0.2.1", 9400)  # kept for documentation: nobody has it
    with pytest.raises(StartupError, match=r"metrics\.listen 192\.0\.2\.1:9400: "):
        asyncio.run(World(far, DEADLINE_S).server.start())


@pytest.mark.parametrize(("host", "reached"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])])
def test_ipv6(host: str, reached: list[str]) -> None:
    """IPv6 is served, and [::] takes both kinds."""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")

    async def scene() -> None:
        async with world(ListenAddress(host, 0)) as one:
            assert str(one.server.address).startswith(f"[{host}]:")
            for peer in reached:
                reader, writer = await asyncio.open_connection(peer, one.server.address.port)
                writer.write(GET)
                assert taken_apart(await asyncio.wait_for(reader.read(), DEADLINE_S)).status == 200
                writer.transport.abort()

    asyncio.run(scene())


def test_close_cuts_what_is_open_at_once() -> None:
    """Closing with connections open takes no deadline of theirs, and twice is fine."""

    async def work(one: World) -> None:
        address = one.server.address
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(3)]
        await eventually(lambda: len(one.server._tasks) == 3, "the connections")
        began_s = time.monotonic()
        await one.server.close()
        await one.server.close()
        assert time.monotonic() - began_s < DEADLINE_S / 2
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection(address.host, address.port)
        for _, writer in held:
            writer.transport.abort()

    play(work)


def test_close_without_a_start_is_fine() -> None:
    """A server that never listened closes, and its address is the one it was given."""
    server = World(ANY_PORT, DEADLINE_S).server
    asyncio.run(server.close())
    assert server.address == ANY_PORT
