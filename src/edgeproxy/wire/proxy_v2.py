"""The PROXY protocol, version 2: a block of bytes (HAProxy, proxy-protocol.txt section 2.2).

    signature 12   version and command 1   family and transport 1   length 2   addresses   TLVs

No length is trusted: the block must be long enough for its addresses, and TLVs must fill the rest
exactly. The block of LOCAL is skipped, and so is that of unspecified families and transports,
because its form is not known. What a TLV says makes no header malformed, except for the checksum:
a value that cannot be right counts as not sent, and of several TLVs of one type the first counts.
One limit is our own: a header has at most 4,096 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from edgeproxy.errors import WireError
from edgeproxy.host_name import host_name
from edgeproxy.wire import server_name as server_names
from edgeproxy.wire.crc32c import crc32c
from edgeproxy.wire.proxy_header import Endpoint, Header, endpoint, of_one_family

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAX_BYTES = 4096
MAX_UNIQUE_ID_BYTES = 128
MAX_TLS_BYTES = 512
MAX_COMMON_NAME_BYTES = 256

LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
"""The header of a connection that the sender makes for itself, such as a health check.

It also stands for clients without an address, such as those of Unix sockets: HAProxy sends it for
them, and rejects a PROXY command with the family UNSPEC.
"""

_FIXED_BYTES = 16
_VERSION_LOCAL = 0x20
_VERSION_PROXY = 0x21
_TCP4 = 0x11
_TCP6 = 0x21
_ADDRESS_BYTES = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
"""Bytes of the addresses by family and transport: TCP and UDP over IPv4 and IPv6, Unix sockets."""
_UNSPECIFIED = {0x00, 0x01, 0x02, 0x10, 0x20, 0x30}

_ALPN = 0x01
_AUTHORITY = 0x02
_CRC32C = 0x03
_UNIQUE_ID = 0x05
_SSL = 0x20
_TLV_HEADER_BYTES = 3
_CRC32C_BYTES = 4
_VERIFY_BYTES = 4
_SSL_FIXED_BYTES = 1 + _VERIFY_BYTES
_SSL_VERSION = 0x21
_SSL_COMMON_NAME = 0x22
_CLIENT_SSL = 0x01
_CLIENT_CERTIFICATE = 0x02 | 0x04
"""The client has shown it on this connection, and it belongs to the TLS session."""

_TOO_LONG = f"the PROXY header is longer than {MAX_BYTES} bytes"


def decode(received: bytes | memoryview) -> Header | None:
    """Return the header at the start of a connection; None while more bytes are needed.

    Raises WireError at the first byte that no header can have. Addresses and TLVs are checked
    when the block is complete.
    """
    fixed = bytes(received[:_FIXED_BYTES])
    size = _size(fixed)
    if len(fixed) < _FIXED_BYTES or len(received) < size:
        return None
    if fixed[12] == _VERSION_LOCAL:
        return Header(version=2, size=size, is_local=True)
    if fixed[13] in _UNSPECIFIED:
        return Header(version=2, size=size)
    return _proxied(bytes(received[:size]))


def _size(fixed: bytes) -> int:
    """Return the size of a header; a lower bound if its fixed part is incomplete."""
    if not SIGNATURE.startswith(fixed[:12]):
        raise WireError("not a PROXY header of version 2")
    is_local = False
    if len(fixed) > 12:
        if fixed[12] not in (_VERSION_LOCAL, _VERSION_PROXY):
            raise WireError("the PROXY header is not of version 2, or its command is unknown")
        is_local = fixed[12] == _VERSION_LOCAL
    least = 0
    if len(fixed) > 13 and not is_local:
        if fixed[13] not in _ADDRESS_BYTES and fixed[13] not in _UNSPECIFIED:
            raise WireError("the PROXY header has an unknown address family or transport")
        least = _ADDRESS_BYTES.get(fixed[13], 0)
    size = _FIXED_BYTES + int.from_bytes(fixed[14:].ljust(2, b"\0"))
    if size > MAX_BYTES:
        raise WireError(_TOO_LONG)
    if len(fixed) == _FIXED_BYTES and size < _FIXED_BYTES + least:
        raise WireError("the PROXY header is too short for addresses of its family")
    return size


def _proxied(header: bytes) -> Header:
    kind = header[13]
    tlvs_at = _FIXED_BYTES + _ADDRESS_BYTES[kind]
    source, destination = _ends(kind, header[_FIXED_BYTES:tlvs_at])
    found: dict[int, bytes] = {}
    for type_, start, end in _tlvs(header, tlvs_at):
        found.setdefault(type_, header[start:end])
        if type_ == _CRC32C:
            _check_crc32c(header, start, end)
    unique_id = found.get(_UNIQUE_ID, b"")
    return Header(
        version=2,
        size=len(header),
        source=source,
        destination=destination,
        server_name=_server_name(found.get(_AUTHORITY, b"")),
        alpn=found.get(_ALPN) or None,
        unique_id=unique_id if 0 < len(unique_id) <= MAX_UNIQUE_ID_BYTES else None,
        tls=_tls(found.get(_SSL, b"")),
    )


def _ends(kind: int, block: bytes) -> tuple[Endpoint, Endpoint] | tuple[None, None]:
    if kind not in (_TCP4, _TCP6):
        return None, None
    of_family, width = (IPv4Address, 4) if kind == _TCP4 else (IPv6Address, 16)
    ports = block[2 * width :]
    return (
        endpoint(of_family(block[:width]), int.from_bytes(ports[:2])),
        endpoint(of_family(block[width : 2 * width]), int.from_bytes(ports[2:])),
    )


def _tlvs(of: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Yield the type of each TLV and the start and end of its value."""
    while at < len(of):
        start = at + _TLV_HEADER_BYTES
        end = start + int.from_bytes(of[at + 1 : start])
        if start > len(of) or end > len(of):
            raise WireError("a TLV of the PROXY header points beyond its end")
        yield of[at], start, end
        at = end


def _check_crc32c(header: bytes, start: int, end: int) -> None:
    if end - start != _CRC32C_BYTES:
        raise WireError("the checksum of the PROXY header does not have 4 bytes")
    without = header[:start] + bytes(_CRC32C_BYTES) + header[end:]
    if crc32c(without) != int.from_bytes(header[start:end]):
        raise WireError("the checksum of the PROXY header is wrong")


def _server_name(authority: bytes) -> str | None:
    try:
        return server_names.decode(authority)
    except WireError:
        return None


def _tls(value: bytes) -> bytes | None:
    """Return what is said of a client's TLS (section 2.2.6); None if it did not speak it."""
    if not _SSL_FIXED_BYTES <= len(value) <= MAX_TLS_BYTES or not value[0] & _CLIENT_SSL:
        return None
    try:
        for _ in _tlvs(value, _SSL_FIXED_BYTES):
            pass
    except WireError:
        return None
    return value


def tls_of(version: str, has_certificate: bool = False, common_name: str = "") -> bytes:
    """Return the value that says how a client speaks TLS, as HAProxy's `send-proxy-v2-ssl-cn`.

    `version` is OpenSSL's word for it. A certificate has been verified, on this connection.
    `common_name` is that of the certificate; a longer one than 256 bytes is left out.
    """
    client = _CLIENT_SSL | (_CLIENT_CERTIFICATE if has_certificate else 0)
    name = common_name.encode("utf-8", "replace")
    return (
        bytes((client,))
        + bytes(_VERIFY_BYTES)
        + _tlv(_SSL_VERSION, version.encode("ascii"))
        + _tlv(_SSL_COMMON_NAME, name if len(name) <= MAX_COMMON_NAME_BYTES else None)
    )


def encode(
    source: Endpoint | None,
    destination: Endpoint | None,
    *,
    server_name: str | None = None,
    alpn: bytes | None = None,
    unique_id: bytes | None = None,
    tls: bytes | None = None,
    checksum: bool = False,
) -> bytes:
    """Return the header for a connection; LOCAL, without TLVs, if an end is None.

    IPv4 is mapped into IPv6 if the other end is IPv6. The server name is sent as the authority;
    `tls` is that of `tls_of` or `Header`. `checksum` adds a CRC-32C. Raises WireError for an
    invalid address, port or host name, and for a value that is too long.
    """
    if source is None or destination is None:
        return LOCAL
    one, other = of_one_family(source, destination)
    kind = _TCP4 if one.version == 4 else _TCP6
    ports = source.port.to_bytes(2) + destination.port.to_bytes(2)
    block = one.packed + other.packed + ports
    block += _tlv(_ALPN, alpn)
    block += _tlv(_AUTHORITY, None if server_name is None else _authority(server_name))
    block += _tlv(_UNIQUE_ID, _unique_id(unique_id))
    block += _tlv(_SSL, tls)
    block += _tlv(_CRC32C, bytes(_CRC32C_BYTES) if checksum else None)
    if _FIXED_BYTES + len(block) > MAX_BYTES:
        raise WireError(_TOO_LONG)
    header = SIGNATURE + bytes((_VERSION_PROXY, kind)) + len(block).to_bytes(2) + block
    return header[:-_CRC32C_BYTES] + crc32c(header).to_bytes(4) if checksum else header


def _unique_id(value: bytes | None) -> bytes | None:
    if value is not None and len(value) > MAX_UNIQUE_ID_BYTES:
        raise WireError(f"the unique id has more than {MAX_UNIQUE_ID_BYTES} bytes")
    return value or None


def _authority(server_name: str) -> bytes:
    name = host_name(server_name)
    if name is None:
        raise WireError("the server name to be sent is not a host name")
    return name.encode("ascii")


def _tlv(type_: int, value: bytes | None) -> bytes:
    """Return a TLV; no bytes if there is no value."""
    if not value:
        return b""
    if len(value) > MAX_BYTES:
        raise WireError(_TOO_LONG)
    return bytes((type_,)) + len(value).to_bytes(2) + value
