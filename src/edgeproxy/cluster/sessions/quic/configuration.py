"""How both ends of a connection between nodes speak QUIC.

The certificate is made at the start and kept in memory. Nobody verifies it: both ends prove
themselves by `cluster.sessions.auth`, which is tied to the TLS session and so to the certificate.
There are no session tickets, hence no data before the handshake, which could be repeated.

The receive windows begin small. aioquic doubles them as they are used, also by a byte that is far
ahead of the others and makes it reserve all between; a stranger is cut off before that gets large.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import replace

from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

from edgeproxy.cluster.sessions.quic.channel import Channel
from edgeproxy.tls.self_signed import self_signed

ALPN = "edgeproxy-repl/1"
IDLE_SECS = 8.0
"""A peer that is not heard of for so long is gone."""
VERSION = QuicProtocolVersion.VERSION_1
CONNECTION_ID_BYTES = 8
FIRST_WINDOW_BYTES = 1024
DATAGRAM_BYTES = SMALLEST_MAX_DATAGRAM_SIZE
"""It passes everywhere. Larger ones would have to be tried, and may vanish later on."""


def answering(now: float) -> QuicConfiguration:
    """Return what `of_connection` takes for connections that others open. `now` is Unix time."""
    certificate, _ = self_signed(now)
    configuration = _common(is_client=False)
    file = os.memfd_create("certificate")  # aioquic wants a path, and the key belongs on no disk
    try:
        with open(file, "wb", closefd=False) as pem:
            pem.write(certificate.chain_pem + certificate.key_pem)
        configuration.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    return configuration


def dialling() -> QuicConfiguration:
    """Return what `of_connection` takes for connections that this node opens."""
    configuration = _common(is_client=True)
    configuration.verify_mode = ssl.CERT_NONE
    return configuration


def of_connection(common: QuicConfiguration) -> tuple[QuicConfiguration, Channel]:
    """Return the configuration of one connection, and what its secrets are told to."""
    channel = Channel()
    return replace(common, secrets_log_file=channel), channel


def _common(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=IDLE_SECS,
        max_data=FIRST_WINDOW_BYTES,
        max_stream_data=FIRST_WINDOW_BYTES,
        max_datagram_size=DATAGRAM_BYTES,
        supported_versions=[VERSION],
    )
