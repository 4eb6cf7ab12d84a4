"""What a TLS socket alone can show; all else is in `tests/conformance`."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest

from edgeproxy.engine.portable.tls_socket import TlsContext
from edgeproxy.engine.portable.unacked import undelivered_bytes
from edgeproxy.engine.tls import TlsSettings
from tests.conformance.tls_peers import TlsClientSocket, client_context
from tests.conformance.tls_rig import NAME, own
from tests.waiting import wait_until


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the place of the library's object")
def test_a_read_ends_although_the_peer_announces_new_keys_without_end() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        client = TlsClientSocket(
            socket.create_connection(listening.getsockname()), client_context(), NAME, None
        )
        server = TlsContext(TlsSettings((own(),))).wrap(listening.accept()[0])
    with closing(client), closing(server):
        client.send_raw(client.next_flight())
        wait_until(lambda: server.shake_hands() or client.take_in(0.1), "the server has spoken")
        client.send_raw(client.next_flight())
        wait_until(server.shake_hands, "the handshake is over")
        client.take_in()
        announced = client.key_announcement(7_000)
        if not announced:
            pytest.skip("this Python brings its own library")
        client.send_raw(announced + client.encrypted(b"the end"))
        wait_until(lambda: not undelivered_bytes(client), "it waits to be read")
        buffer = memoryview(bytearray(100))
        with pytest.raises(InterruptedError):
            server.recv_into(buffer)
        assert socket.socket.recv(server, 1, socket.MSG_PEEK)
        size = 0
        while not size:
            try:
                size = server.recv_into(buffer)
            except InterruptedError:
                continue
        assert bytes(buffer[:size]) == b"the end"
