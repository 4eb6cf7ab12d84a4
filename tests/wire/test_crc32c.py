"""The checksum is the one of the RFC."""

from __future__ import annotations

import pytest

from edgeproxy.wire.crc32c import crc32c


@pytest.mark.parametrize(
    ("of", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and the following: RFC 3720 appendix B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_known_checksums(of: bytes, checksum: int) -> None:
    assert crc32c(of) == checksum
