r"""The PROXY protocol, version 1: a line of text (HAProxy, proxy-protocol.txt section 2.1).

    PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n

Fields are separated by one space. Ports and IPv4 addresses have no leading zeros, and addresses are
of the announced family. The line ends in CRLF and has at most 107 bytes with it. After UNKNOWN any
printable text may follow; it is not read. The line consists of printable ASCII only.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from edgeproxy.errors import WireError
from edgeproxy.wire.proxy_header import (
    MAX_PORT,
    Address,
    Endpoint,
    Header,
    endpoint,
    of_one_family,
)

MAX_BYTES = 107
UNKNOWN = b"PROXY UNKNOWN\r\n"

_BEGINNINGS = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", UNKNOWN)
_CRLF_BYTES = 2
_PRINTABLE = re.compile(rb"[ -~]*")
_IPV4 = re.compile(rb"PROXY TCP4 ([0-9.]+) ([0-9.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_IPV6 = re.compile(
    rb"PROXY TCP6 ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)


def decode(received: bytes | memoryview) -> Header | None:
    """Return the header at the start of a connection; None while more bytes are needed.

    Raises WireError at the first byte that no header can have. Fields are checked when the line
    is complete.
    """
    start = bytes(received[:MAX_BYTES])
    if not any(start.startswith(each[: len(start)]) for each in _BEGINNINGS):
        raise WireError("not a PROXY header of version 1")
    printable = _PRINTABLE.match(start)
    assert printable is not None
    line = printable[0]
    size = len(line) + _CRLF_BYTES
    if size > MAX_BYTES:
        raise WireError(f"the PROXY line has not ended after {MAX_BYTES} bytes")
    ending = start[len(line) : size]
    if not b"\r\n".startswith(ending):
        raise WireError("the PROXY line does not end in CRLF, or is not of printable ASCII")
    if len(ending) < _CRLF_BYTES:
        return None
    if line.startswith(b"PROXY UNKNOWN"):
        return Header(version=1, size=size)
    source, destination = _ends(line)
    return Header(version=1, size=size, source=source, destination=destination)


def _ends(line: bytes) -> tuple[Endpoint, Endpoint]:
    is_ipv4 = line.startswith(b"PROXY TCP4 ")
    fields = (_IPV4 if is_ipv4 else _IPV6).fullmatch(line)
    if fields is None:
        raise WireError("the PROXY line is not made of two addresses and two ports")
    ports = int(fields[3]), int(fields[4])
    if max(ports) > MAX_PORT:
        raise WireError("a port in the PROXY line is beyond 65535")
    of_family = IPv4Address if is_ipv4 else IPv6Address
    try:
        source, destination = (of_family(fields[field].decode("ascii")) for field in (1, 2))
    except AddressValueError:
        raise WireError("an address in the PROXY line is not of its family") from None
    return endpoint(source, ports[0]), endpoint(destination, ports[1])


def encode(source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """Return the header for a connection; UNKNOWN if an end is None.

    IPv4 is mapped into IPv6 if the other end is IPv6. Raises WireError for an invalid address
    or port.
    """
    if source is None or destination is None:
        return UNKNOWN
    one, other = of_one_family(source, destination)
    line = f"PROXY TCP{one.version} {_text(one)} {_text(other)} {source.port} {destination.port}"
    return f"{line}\r\n".encode("ascii")


def _text(address: Address) -> str:
    """Return an address in the form of the specification: no dots in IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is None:
        return str(address)
    return f"::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}"
