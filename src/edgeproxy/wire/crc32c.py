"""The checksum of PROXY protocol headers, CRC-32C (RFC 9260 appendix A, formerly RFC 4960 B)."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_entry(byte) for byte in range(256))


def crc32c(of: bytes) -> int:
    """Return the checksum of these bytes."""
    crc = 0xFFFFFFFF
    for byte in of:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
