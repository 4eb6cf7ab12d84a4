"""Decodes the ClientHello, the first message of a TLS client, for the server it asks for.

Reads the message (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2) from the first bytes of a
connection, in whatever records and segments they arrive. The proxy passes the bytes on unchanged.
Every length must fit exactly, an extension may not occur twice, and no byte may follow the message
in its last record. SSL 3.0 to TLS 1.3 are read; an SSL 2.0 hello is refused. With Encrypted
ClientHello the outer name is the name.

The decoder does not judge versions or ciphers: client and backend agree on those.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edgeproxy.errors import WireError
from edgeproxy.wire import server_name

MAX_MESSAGE_BYTES = 16384
"""Largest ClientHello. One with post-quantum keys has about 1,800 bytes."""

MAX_ENTRIES = 128
"""Maximum number of entries in a list of a ClientHello. Bounds the time a client can cost."""

_RECORD_HEADER_BYTES = 5
_MESSAGE_HEADER_BYTES = 4
MAX_BYTES = 16 * 1024 + 512
"""Maximum length with the headers of its records, however many these are.

Given this many bytes, `decode` never returns None.
"""

_MAX_RECORD_BYTES = 16384
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_MAJOR_VERSION = 3
_RANDOM_BYTES = 32
_MAX_SESSION_ID_BYTES = 32
_SERVER_NAME = 0
_ALPN = 16
_SUPPORTED_VERSIONS = 43
_HOST_NAME = 0


class ClientHello(NamedTuple):
    """The fields of a ClientHello that the proxy uses.

    Attributes:
        server_name: In normal form (`edgeproxy.host_name`); None if the client
            sends no name, or an IP address.
        alpn: The protocols that it offers, the preferred one first; untrusted bytes.
        legacy_version: For instance 0x0303, which TLS 1.2 and 1.3 both send.
        supported_versions: The versions that it lists, the preferred one first, unknown ones
            included; empty before TLS 1.3.
    """

    server_name: str | None
    alpn: tuple[bytes, ...] = ()
    legacy_version: int = 0x0303
    supported_versions: tuple[int, ...] = ()


def decode(received: bytes | memoryview) -> ClientHello | None:
    """Return the ClientHello at the start of a connection; None while more bytes are needed.

    `received` is all bytes received so far. Raises WireError at the first byte that no
    ClientHello can have.
    """
    found = _message(bytes(received[:MAX_BYTES]))
    return None if isinstance(found, int) else _client_hello(found)


def bytes_wanted(received: bytes | memoryview) -> int:
    """Return how many bytes there have to be, at least, before `decode` can return a value.

    `received` is what `decode` has returned None for. Who waits for that many calls `decode` a few
    times, in however small pieces a client sends.
    """
    found = _message(bytes(received[:MAX_BYTES]))
    return len(received) + (found if isinstance(found, int) else 0)


def _message(received: bytes) -> bytes | int:
    """Return the body of the message in these records, or how many bytes are missing at least."""
    message = bytearray()
    start, end = 0, _MESSAGE_HEADER_BYTES
    while True:
        header = received[start : start + _RECORD_HEADER_BYTES]
        size = _record_size(header)
        if len(header) < _RECORD_HEADER_BYTES:
            return _RECORD_HEADER_BYTES - len(header) + end - len(message)
        start += _RECORD_HEADER_BYTES
        record = received[start : start + size]
        earlier = len(message)
        message += record
        end = _MESSAGE_HEADER_BYTES + _message_size(message[:_MESSAGE_HEADER_BYTES])
        if len(message) >= _MESSAGE_HEADER_BYTES:
            if earlier + size > end:
                raise WireError("something follows the ClientHello in its record")
            if len(message) == end:
                return bytes(message[_MESSAGE_HEADER_BYTES:])
        if len(record) < size:
            return max(end - len(message), size - len(record))
        start += size
        if start + _RECORD_HEADER_BYTES + end - len(message) > MAX_BYTES:
            raise WireError(f"the ClientHello and its records are longer than {MAX_BYTES} bytes")


def _record_size(header: bytes) -> int:
    """Return the size of a record's content (RFC 8446 5.1); a lower bound if its header is cut."""
    if header and header[0] != _HANDSHAKE:
        raise WireError("not a TLS handshake record")
    if len(header) > 1 and header[1] != _MAJOR_VERSION:
        raise WireError("not a version of TLS")
    size = int.from_bytes(header[3:].ljust(2, b"\0"))
    if size > _MAX_RECORD_BYTES:
        raise WireError("a TLS record is longer than allowed")
    if len(header) == _RECORD_HEADER_BYTES and size == 0:
        raise WireError("a TLS handshake record is empty")
    return size


def _message_size(message: bytes | bytearray) -> int:
    """Return the size of a message's body; a lower bound if its header is incomplete."""
    if message and message[0] != _CLIENT_HELLO:
        raise WireError("the first TLS message is not a ClientHello")
    size = int.from_bytes(message[1:_MESSAGE_HEADER_BYTES].ljust(3, b"\0"))
    if size > MAX_MESSAGE_BYTES:
        raise WireError(f"the ClientHello is longer than {MAX_MESSAGE_BYTES} bytes")
    return size


def _client_hello(body: bytes) -> ClientHello:
    legacy_version = int.from_bytes(body[:2])
    if len(body) < 2 + _RANDOM_BYTES or legacy_version >> 8 != _MAJOR_VERSION:
        raise WireError("the ClientHello is cut short or not of a version of TLS")
    session_id, at = _vector(body, 2 + _RANDOM_BYTES, 1)
    ciphers, at = _vector(body, at, 2)
    compressions, at = _vector(body, at, 1)
    if len(session_id) > _MAX_SESSION_ID_BYTES:
        raise WireError("the session id of the ClientHello is longer than allowed")
    if not ciphers or len(ciphers) % 2 or not compressions:
        raise WireError("the ClientHello lists no ciphers, half a cipher or no compression")
    extensions = _extensions(body, at) if at < len(body) else {}
    name = extensions.get(_SERVER_NAME)
    alpn = extensions.get(_ALPN)
    versions = extensions.get(_SUPPORTED_VERSIONS)
    return ClientHello(
        server_name=None if name is None else _server_name(name),
        alpn=() if alpn is None else _alpn(alpn),
        legacy_version=legacy_version,
        supported_versions=() if versions is None else _versions(versions),
    )


def _extensions(body: bytes, at: int) -> dict[int, bytes]:
    """Return the contents of all extensions by type (RFC 8446 section 4.2)."""
    block, end = _vector(body, at, 2)
    if end != len(body):
        raise WireError("something follows the extensions of the ClientHello")
    extensions: dict[int, bytes] = {}
    for kind, content in _entries(block, 2, 2):
        if kind in extensions:
            raise WireError("an extension of the ClientHello occurs twice")
        extensions[kind] = content
    return extensions


def _server_name(extension: bytes) -> str | None:
    """Return the host name in a server_name extension (RFC 6066 section 3)."""
    names = [name for kind, name in _entries(_list(extension, 2), 1, 2) if kind == _HOST_NAME]
    if len(names) > 1:
        raise WireError("the ClientHello names two servers")
    return server_name.decode(names[0]) if names else None


def _alpn(extension: bytes) -> tuple[bytes, ...]:
    """Return the protocol names of an ALPN extension (RFC 7301 section 3.1)."""
    protocols = tuple(protocol for _, protocol in _entries(_list(extension, 2), 0, 1))
    if b"" in protocols:
        raise WireError("the ClientHello offers a protocol without a name")
    return protocols


def _versions(extension: bytes) -> tuple[int, ...]:
    """Return the versions of a supported_versions extension (RFC 8446 section 4.2.1)."""
    versions = _list(extension, 1)
    if len(versions) % 2:
        raise WireError("the ClientHello lists half a version")
    return tuple(int.from_bytes(versions[at : at + 2]) for at in range(0, len(versions), 2))


def _list(content: bytes, length_bytes: int) -> bytes:
    """Return the non-empty list that fills an extension."""
    vector, end = _vector(content, 0, length_bytes)
    if end != len(content) or not vector:
        raise WireError("a list in the ClientHello is empty or does not fill its extension")
    return vector


def _entries(of: bytes, kind_bytes: int, length_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the entries that fill a list: a kind, a length and that many bytes each."""
    at = 0
    for _ in range(MAX_ENTRIES):
        if at == len(of):
            return
        content, end = _vector(of, at + kind_bytes, length_bytes)
        yield int.from_bytes(of[at : at + kind_bytes]), content
        at = end
    if at < len(of):
        raise WireError(f"a list in the ClientHello has more than {MAX_ENTRIES} entries")


def _vector(of: bytes, at: int, length_bytes: int) -> tuple[bytes, int]:
    """Return a vector with its length before it (RFC 8446 section 3.4), and where it ends."""
    start = at + length_bytes
    end = start + int.from_bytes(of[at:start])
    if end > len(of) or start > len(of):
        raise WireError("a length in the ClientHello points beyond its end")
    return of[start:end], end
