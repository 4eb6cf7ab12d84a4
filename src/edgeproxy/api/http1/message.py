"""The head of a request, and an answer, as bytes on a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

CLOSE = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request.

    Attributes:
        path: The path with its escapes resolved; `raw_path` is as it was sent.
        headers: Names in lower case, and values.
        by_name: The values by name; of several with one name the last.
        caller: The address of the caller in normal form.
        client: Address and port of the caller's end of the connection; `server` are those of ours.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    caller: str
    client: tuple[str, int] = ("", 0)
    server: tuple[str, int] = ("", 0)
    by_name: Mapping[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", dict(self.headers))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. Its headers include the length of the body, which comes in pieces.

    Nothing ever joins the pieces of a large one: a copy would stop all threads.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: Sequence[bytes]

    @property
    def size(self) -> int:
        """The length of the body in bytes."""
        return sum(map(len, self.body))

    def head(self, *, closes: bool) -> bytes:
        """Return its head as bytes; `closes` tells that it is the last on its connection."""
        lines = [b"HTTP/1.1 %d %s" % (self.status, HTTPStatus(self.status).phrase.encode())]
        lines += [b"%s: %s" % header for header in self.headers if header != CLOSE]
        if closes:
            lines.append(b"%s: %s" % CLOSE)
        return b"\r\n".join(lines) + b"\r\n\r\n"
