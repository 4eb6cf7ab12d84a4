"""Checks the health of a backend by gRPC (`grpc.health.v1.Health/Check`).

It makes one unary call over HTTP/2 without TLS. The two messages of the protocol are small enough
to encode by hand: a request is field 1, a string; a response is field 1, an enum.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio

from edgeproxy.core.backends.backend import Backend

PATH = "/grpc.health.v1.Health/Check"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING = 1
READ_BYTES = 65536


async def check(backend: Backend, service: str) -> str:
    """Return what is wrong with a service of a backend, or "" if it is serving.

    Raises OSError if the call cannot be made.
    """
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    reader, writer = await asyncio.open_connection(backend.wg_ip, backend.port)
    try:
        dialog = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        dialog.initiate_connection()
        stream = dialog.get_next_available_stream_id()
        dialog.send_headers(stream, _headers(backend.address))
        dialog.send_data(stream, _request(service), end_stream=True)
        writer.write(dialog.data_to_send())
        answer = _Answer()
        while not answer.ended:
            data = await reader.read(READ_BYTES)
            if not data:
                return "closed the connection without an answer"
            for event in dialog.receive_data(data):
                answer.take(event)
            writer.write(dialog.data_to_send())
        return answer.fault()
    except ProtocolError as error:
        return f"no gRPC: {str(error) or type(error).__name__}"
    finally:
        writer.transport.abort()


def _headers(authority: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", PATH),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "edgeproxy-probe"),
    ]


def _request(service: str) -> bytes:
    """Return a HealthCheckRequest with the length prefix of gRPC."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


class _Answer:
    """The response received so far."""

    def __init__(self) -> None:
        self.ended = False
        self._headers: dict[str, str] = {}
        self._body = b""

    def take(self, event: object) -> None:
        """Record one event of the connection."""
        from h2 import events

        if isinstance(event, events.ResponseReceived | events.TrailersReceived):
            self._headers.update((_text(name), _text(value)) for name, value in event.headers or ())
        elif isinstance(event, events.DataReceived):
            self._body += event.data or b""
        elif isinstance(
            event, events.StreamEnded | events.StreamReset | events.ConnectionTerminated
        ):
            self.ended = True

    def fault(self) -> str:
        """Return what is wrong, or "" if the service is serving."""
        status = self._headers.get(":status", "none")
        if status != "200":
            return f"no gRPC: HTTP status {status}"
        code = self._headers.get("grpc-status", "none")
        if code != "0":
            return f"gRPC status {code} {self._headers.get('grpc-message', '')}".rstrip()
        serving = _status(self._body[5:])
        if serving == SERVING:
            return ""
        return STATUSES[serving] if serving < len(STATUSES) else f"serving status {serving}"


def _text(value: bytes | str) -> str:
    """Return a header name or value, which may contain any bytes, as text."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _status(message: bytes) -> int:
    """Return field 1 of a HealthCheckResponse; 0, which is UNKNOWN, if it is missing."""
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0
