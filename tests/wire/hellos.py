"""ClientHellos: real ones from OpenSSL, and made ones with anything in them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence

HANDSHAKE = 22
SERVER_NAME, ALPN, SUPPORTED_VERSIONS, PADDING = 0, 16, 43, 21


def from_openssl(
    server_name: str | None = "www.example.com",
    alpn: Sequence[str] = (),
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    """Return the first bytes that a client of Python's ssl module sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # some systems begin lower
    context.check_hostname = False
    context.maximum_version = newest
    if alpn:
        context.set_alpn_protocols(list(alpn))
    sent = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=server_name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()


def vector(content: bytes, length_bytes: int) -> bytes:
    return len(content).to_bytes(length_bytes) + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2) + vector(content, 2)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    listed = b"".join(bytes((kind,)) + vector(name, 2) for name in names)
    return extension(SERVER_NAME, vector(listed, 2))


def alpn(*protocols: bytes) -> bytes:
    return extension(ALPN, vector(b"".join(vector(each, 1) for each in protocols), 2))


def versions(*numbers: int) -> bytes:
    listed = b"".join(number.to_bytes(2) for number in numbers)
    return extension(SUPPORTED_VERSIONS, vector(listed, 1))


def message(
    *extensions: bytes,
    version: int = 0x0303,
    session_id: bytes = b"\x07" * 32,
    ciphers: bytes = b"\x13\x01\xc0\x2b",
    compressions: bytes = b"\0",
    after: bytes = b"",
    block: bytes | None = None,
) -> bytes:
    """Return a handshake message; `block` is what stands in place of the extensions."""
    body = version.to_bytes(2) + bytes(range(32))
    body += vector(session_id, 1) + vector(ciphers, 2) + vector(compressions, 1)
    body += vector(b"".join(extensions), 2) if block is None else block
    return b"\x01" + vector(body + after, 3)


def records(of: bytes, sizes: Iterable[int] = (), version: int = 0x0301) -> bytes:
    """Return a handshake message in records of these sizes; the last takes what is left."""
    sent = b""
    for size in sizes:
        if 0 < size < len(of):
            sent += record(of[:size], version)
            of = of[size:]
    return sent + record(of, version)


def record(content: bytes, version: int = 0x0301, kind: int = HANDSHAKE) -> bytes:
    return bytes((kind,)) + version.to_bytes(2) + vector(content, 2)


def message_of(sent: bytes) -> bytes:
    """Return the handshake message of a hello that came in one record."""
    return sent[5:]
