"""Bytes arrive unchanged, in order, in both directions, and are counted."""

from __future__ import annotations

import time

import pytest

from edgeproxy.engine.contract import CloseReason
from tests.conformance.peers import Pause, Stream
from tests.conformance.rig import Rig

BULK = 100 << 20
MANY = 500


def test_a_request_and_its_answer_arrive(rig: Rig) -> None:
    client, server = rig.pair()
    client.send(b"ping")
    assert server.receive(4) == b"ping"
    server.send(b"pong!")
    assert client.receive(5) == b"pong!"


def test_the_server_may_speak_first(rig: Rig) -> None:
    client, server = rig.pair()
    server.send(b"220 ready")
    assert client.receive(9) == b"220 ready"
    client.send(b"QUIT")
    assert server.receive(4) == b"QUIT"


def test_single_bytes_arrive_both_ways(rig: Rig) -> None:
    client, server = rig.pair()
    for byte in range(256):
        client.send(bytes([byte]))
        assert server.receive(1) == bytes([byte])
        server.send(bytes([255 - byte]))
        assert client.receive(1) == bytes([255 - byte])


def test_many_single_bytes_may_be_under_way(rig: Rig) -> None:
    client, server = rig.pair()
    data = bytes(range(256)) * 4
    for byte in data:
        client.send(bytes([byte]))
        server.send(bytes([byte]))
    assert server.receive(len(data)) == data
    assert client.receive(len(data)) == data


def test_small_writes_do_not_wait_for_acknowledgements(rig: Rig) -> None:
    client, server = rig.pair()
    started = time.monotonic()
    for _ in range(100):
        client.send(b"head")
        assert server.receive(4) == b"head"
        client.send(b"body")
        client.send(b"tail")
        assert server.receive(8) == b"bodytail"
        server.send(b"one")
        server.send(b"two")
        assert client.receive(6) == b"onetwo"
    assert time.monotonic() - started < 2.0  # 40 ms for each delayed acknowledgement


def test_a_connection_without_a_byte_is_carried(rig: Rig) -> None:
    client, server = rig.pair()
    client.close()
    assert server.rest() == Pause(b"", reset=False)
    server.close()
    outcome = rig.outcome()
    assert outcome[:3] == (CloseReason.FINISHED, 0, 0)


def test_a_hundred_megabytes_each_way_at_once(rig: Rig) -> None:
    client, server = rig.pair()
    rig.carry_both_ways(client, server, BULK)
    client.end()
    server.end()
    assert client.rest() == server.rest() == Pause(b"", reset=False)
    assert rig.outcome()[:3] == (CloseReason.FINISHED, BULK, BULK)


def test_a_bulk_transfer_may_become_a_conversation_and_bulk_again(rig: Rig) -> None:
    client, server = rig.pair()
    up, down = Stream(3), Stream(4)
    for _ in range(3):
        sending = rig.run(client.send_stream, up, 8 << 20)
        server.receive_stream(up, 8 << 20)
        sending.result()
        for size in (1, 100, 5000):
            client.send_stream(up, size)
            server.receive_stream(up, size)
            server.send_stream(down, size)
            client.receive_stream(down, size)


@pytest.mark.parametrize("size", [1, 1000, 65_536, 65_537, 1_000_001])
def test_the_outcome_counts_every_byte(rig: Rig, size: int) -> None:
    began_at = time.monotonic()
    client, server = rig.pair()
    up, down = Stream(5), Stream(6)
    sending = rig.run(client.send_stream, up, size)
    server.receive_stream(up, size)
    sending.result()
    answering = rig.run(server.send_stream, down, 2 * size)
    client.receive_stream(down, 2 * size)
    answering.result()
    client.end()
    server.end()
    outcome = rig.outcome()
    assert outcome[:3] == (CloseReason.FINISHED, size, 2 * size)
    assert 0 < outcome.secs < time.monotonic() - began_at


def test_many_sessions_at_once_are_kept_apart(rig: Rig) -> None:
    rig.serve()
    clients = {index: rig.connect() for index in range(MANY)}
    for index, client in clients.items():
        client.send(index.to_bytes(4, "big"))
    servers = [rig.accept() for _ in range(MANY)]
    assert rig.engine.live() == MANY
    seen = set()
    for server in servers:
        name = server.receive(4)
        seen.add(name)
        server.send(name * 2)
        server.end()
    assert len(seen) == MANY
    for index, client in clients.items():
        assert client.rest() == Pause(index.to_bytes(4, "big") * 2, reset=False)
        client.close()
    for index in range(MANY):
        assert rig.outcome(index)[:3] == (CloseReason.FINISHED, 4, 8)


def test_a_thousand_short_sessions_leave_nothing_behind(rig: Rig) -> None:
    for index in range(1000):
        client, server = rig.pair()
        client.send(b"?")
        assert server.receive(1) == b"?"
        if index % 3 == 0:
            client.reset()
            server.close()
        else:
            first, second = (client, server) if index % 3 == 1 else (server, client)
            first.close()
            assert second.rest() == Pause(b"", reset=False)
            second.close()
