"""A sample backend: a separate program that answers each client with its own id.

`nc` and `curl` can talk to it:

    GET /                      an HTTP response with the id
    GET /lines/COUNT[/SECS]    an HTTP response of COUNT numbered lines, spread over SECS
    any other line             the id and that line, any number of times

It prints the port it listens on. It ends when its stdin is closed, because then the program that
started it is gone. It imports nothing of edgeproxy and little else: nine of them start at once.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedRWPair

LINE_BYTES = 64
MAX_INSTALMENTS = 100
MAX_REQUEST_LINE_BYTES = 8192

_PAUSE = threading.Event()  # never set: waiting on it is a pause


def numbered_lines(backend_id: str, count: int) -> Iterator[bytes]:
    """Yield `count` lines of LINE_BYTES each, in instalments of equal size; the last is the rest.

    Every line names the backend and its own number, so that a lost line shows.
    """
    size = max(1, count // MAX_INSTALMENTS)
    for start in range(1, count + 1, size):
        numbers = range(start, min(start + size, count + 1))
        lines = (f"{backend_id} line {number} of {count}" for number in numbers)
        yield "".join(f"{line:<{LINE_BYTES - 1}}\n" for line in lines).encode()


def serve(backend_id: str) -> None:
    """Accept clients on a port of the system's choice until the process ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    while True:
        client, _ = listening.accept()
        threading.Thread(target=_attend, args=(client, backend_id), daemon=True).start()


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def _attend(client: socket.socket, backend_id: str) -> None:
    try:
        with client, client.makefile("rwb") as stream:
            while line := stream.readline(MAX_REQUEST_LINE_BYTES):
                if line.startswith(b"GET "):
                    _respond(stream, line.split()[1].decode("ascii", "replace"), backend_id)
                    return
                stream.write(f"{backend_id}: ".encode() + line.rstrip() + b"\n")
                stream.flush()
    except OSError:
        pass  # this client is gone; the others are not


def _respond(stream: BufferedRWPair, path: str, backend_id: str) -> None:
    while stream.readline(MAX_REQUEST_LINE_BYTES).strip():
        pass  # headers change nothing here
    status, bodies, pause_secs = "200 OK", iter((f"{backend_id}\n".encode(),)), 0.0
    length = len(backend_id) + 1
    words = path.strip("/").split("/")
    if words[0] == "lines" and len(words) in (2, 3) and all(map(str.isdigit, words[1:])):
        count, secs = int(words[1]), int(words[2]) if words[2:] else 0
        bodies, length = numbered_lines(backend_id, count), count * LINE_BYTES
        pause_secs = secs / min(max(count, 1), MAX_INSTALMENTS)
    elif path != "/":
        status = "404 Not Found"
    stream.write(
        f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n"
        f"X-Backend: {backend_id}\r\n\r\n".encode()
    )
    for body in bodies:
        stream.write(body)
        stream.flush()
        if pause_secs:
            _PAUSE.wait(pause_secs)


if __name__ == "__main__":
    serve(sys.argv[1])
