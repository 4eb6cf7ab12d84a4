"""A peer owes an answer while sent bytes are unacknowledged, and not when it merely waits."""

from __future__ import annotations

import socket
import time

from edgeproxy.engine.portable.unacked import unacked_since, undelivered_bytes


def test_who_has_acknowledged_everything_owes_nothing() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x")
            accepted.recv(1)
            assert unacked_since(client, 0.0, time.monotonic()) == 0.0


def test_a_dial_without_an_answer_is_owed_since_the_first_look() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        try:
            for _ in range(4):
                dialing = socket.socket()
                dialing.setblocking(False)
                dialing.connect_ex(full.getsockname())
                waiting.append(dialing)
            now = time.monotonic()
            since = unacked_since(waiting[-1], 0.0, now)
            assert since == now
            assert unacked_since(waiting[-1], since, now + 5.0) == since
        finally:
            for dialing in waiting:
                dialing.close()


def test_what_is_no_connection_owes_nothing() -> None:
    closed = socket.socket()
    closed.close()
    assert unacked_since(closed, 5.0, 9.0) == 0.0
    left, right = socket.socketpair()
    with left, right:
        assert unacked_since(left, 5.0, 9.0) == 0.0


def test_undelivered_bytes_are_those_the_peer_has_not_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            try:
                while client.send(b"x" * 65536):
                    pass
            except BlockingIOError:
                pass
            assert undelivered_bytes(client) > 0
            assert undelivered_bytes(accepted) == 0
    assert undelivered_bytes(client) == 0
