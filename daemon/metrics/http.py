"""The little of HTTP/1.1 that a scraper needs: reads one request, within bounds, and writes one answer.

Whatever a peer sends ends in a request or in ``BadRequestError``; bodies are not read.
"""

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEAD_BYTES = 8 * 1024
"""Request line and headers together; a scraper's take some 300 bytes."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/1\.[0-9]")


class BadRequestError(Exception):
    """Raised when a peer's words are no request that is answered; ``status`` says what it is told."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request's method and its path, without a query."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back. ``allow`` names the methods, where the answer is that this one is not among them."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    allow: str = ""

    def encode(self, *, with_body: bool = True) -> bytes:
        """Return the answer's bytes; without its body they are those for HEAD."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Connection: close",
        ]
        if self.allow:
            lines.append(f"Allow: {self.allow}")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head + self.body if with_body else head


def told(status: HTTPStatus, text: str = "", *, allow: str = "") -> Answer:
    """Return an answer that is one line of text."""
    return Answer(status, f"{text or status.phrase}\n".encode(), allow=allow)


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Return the next request, its headers read and thrown away.

    The reader's limit must be ``MAX_HEAD_BYTES``. Raises BadRequestError for garbage, for more than ``MAX_HEAD_BYTES``
    and for a peer that leaves in the middle.
    """
    line = await _line(reader, MAX_HEAD_BYTES)
    match = _REQUEST_LINE.fullmatch(line.rstrip(b"\r\n"))
    if match is None:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "not an HTTP/1 request")
    left = MAX_HEAD_BYTES - len(line)
    while (line := await _line(reader, left)).rstrip(b"\r\n"):
        left -= len(line)
    return Request(match[1].decode("ascii"), match[2].decode("ascii").partition("?")[0])


async def _line(reader: asyncio.StreamReader, most_bytes: int) -> bytes:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the request ends in the middle") from error
    except asyncio.LimitOverrunError as error:
        raise _too_long() from error
    if len(line) > most_bytes:
        raise _too_long()
    return line


def _too_long() -> BadRequestError:
    text = f"request line and headers take more than {MAX_HEAD_BYTES} bytes"
    return BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
