"""The key of the certificate stays in memory, and each connection has a channel of its own."""

from __future__ import annotations

import os

from edgeproxy.cluster.sessions.quic import configuration


def test_the_certificate_is_new_each_time_and_leaves_no_file_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    one, other = configuration.answering(1.8e9), configuration.answering(1.8e9)
    assert one.certificate != other.certificate
    assert one.private_key is not None
    assert set(os.listdir("/proc/self/fd")) == before


def test_connections_share_the_certificate_but_not_the_channel() -> None:
    common = configuration.answering(1.8e9)
    (one, first), (other, second) = (configuration.of_connection(common) for _ in range(2))
    assert one.certificate is other.certificate
    assert one.secrets_log_file is first is not second
    assert common.secrets_log_file is None


def test_datagrams_pass_everywhere_and_nothing_is_resumed() -> None:
    for common in (configuration.answering(1.8e9), configuration.dialling()):
        assert common.max_datagram_size == 1200
        assert common.session_ticket is None
        assert common.supported_versions == [1]
