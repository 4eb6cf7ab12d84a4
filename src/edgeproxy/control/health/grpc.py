"""Checks the health of a backend by gRPC (`grpc.health.v1.Health/Check`).

It makes one unary call over HTTP/2. The two messages of the protocol are small enough to encode by
hand: a request is field 1, a string; a response is field 1, an enum.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md

Frames are counted before h2 sees them, because each of them costs much more than its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeproxy.control.health.connection import ProbeConnection, ProbeError

ALPN = ("h2",)
PATH = "/grpc.health.v1.Health/Check"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING = 1
MAX_FRAMES = 64
"""Maximum number of frames of an answer; a usual one has about ten."""
MAX_FRAME_BYTES = 16384
MAX_HEADERS_BYTES = 8192
"""Maximum size of the headers, and of the trailers, when they are unpacked."""

_FRAME_HEAD_BYTES = 9
_GOAWAY = 7


async def check(connection: ProbeConnection, scheme: str, authority: str, service: str) -> str:
    """Return what is wrong with a service of a backend, or "" if it is serving.

    Raises OSError and ProbeError.
    """
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError
    from h2.settings import SettingCodes, Settings

    dialog = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    dialog.local_settings = Settings(
        client=True,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS_BYTES,
        },
    )
    dialog.decoder.max_header_list_size = MAX_HEADERS_BYTES
    dialog.initiate_connection()
    stream = dialog.get_next_available_stream_id()
    dialog.send_headers(stream, _headers(scheme, authority))
    dialog.send_data(stream, _request(service), end_stream=True)
    answer, frames = _Answer(), _Frames()
    try:
        while True:
            await connection.send(dialog.data_to_send())
            data = await connection.receive()
            if not data:
                return "closed the connection without an answer"
            for frame in frames.add(data):
                if _is_graceful_end(frame, stream):
                    continue  # h2 would take nothing after it
                for event in dialog.receive_data(frame):
                    answer.take(event)
                if answer.ended:
                    return answer.fault()
    except ProtocolError as error:
        text = str(error)
        name = "" if text and not text.isdigit() else f"{type(error).__name__} "
        return f"no gRPC: {name}{text}".rstrip()


class _Frames:
    """Divides what comes into frames, and counts them."""

    def __init__(self) -> None:
        self._received = b""
        self._count = 0

    def add(self, data: bytes) -> Iterator[bytes]:
        """Return the frames that are complete now. Raises ProbeError."""
        self._received += data
        while len(self._received) >= _FRAME_HEAD_BYTES:
            size = int.from_bytes(self._received[:3])
            if size > MAX_FRAME_BYTES:
                raise ProbeError("no gRPC: the answer is not made of HTTP/2 frames")
            size += _FRAME_HEAD_BYTES
            if len(self._received) < size:
                return
            self._count += 1
            if self._count > MAX_FRAMES:
                raise ProbeError(f"no gRPC: no answer within {MAX_FRAMES} frames")
            frame, self._received = self._received[:size], self._received[size:]
            yield frame


def _is_graceful_end(frame: bytes, stream: int) -> bool:
    """Return whether a frame says that calls after ours will not be answered, but ours will.

    A server that drains sends it at any time. Raises ProbeError if ours will not be, either.
    """
    if frame[3] != _GOAWAY or len(frame) < _FRAME_HEAD_BYTES + 8:
        return False
    last = int.from_bytes(frame[9:13]) & 0x7FFFFFFF
    code = int.from_bytes(frame[13:17])
    if code:
        raise ProbeError(f"no gRPC: the server ended the connection with error code {code}")
    if last < stream:
        raise ProbeError("the server is shutting down and takes no calls")
    return True


def _headers(scheme: str, authority: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", scheme),
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
        self._reset = ""

    def take(self, event: object) -> None:
        """Record one event of the connection."""
        from h2 import events

        if isinstance(event, events.ResponseReceived | events.TrailersReceived):
            self._headers.update((_text(name), _text(value)) for name, value in event.headers or ())
        elif isinstance(event, events.DataReceived):
            self._body += event.data or b""
        elif isinstance(event, events.StreamEnded):
            self.ended = True
        elif isinstance(event, events.StreamReset):
            self.ended = True
            self._reset = f"no gRPC: the server reset the call with error code {event.error_code:d}"

    def fault(self) -> str:
        """Return what is wrong, or "" if the service is serving."""
        if self._reset:
            return self._reset
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
