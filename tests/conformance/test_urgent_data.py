"""Urgent data (MSG_OOB) is carried in line: nothing of it is lost and nothing stalls."""

from __future__ import annotations

import socket

import pytest

from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import Rig

DIRECTIONS = pytest.mark.parametrize("upward", [True, False], ids=["from client", "from backend"])


def _source_and_sink(rig: Rig, upward: bool) -> tuple[Peer, Peer]:
    client, server = rig.pair()
    return (client, server) if upward else (server, client)


@DIRECTIONS
def test_an_urgent_byte_stays_in_its_place(rig: Rig, upward: bool) -> None:
    source, sink = _source_and_sink(rig, upward)
    source.send(b"before")
    source.send(b"!", socket.MSG_OOB)
    source.send(b"after")
    assert sink.receive(12) == b"before!after"
    sink.send(b"answer")
    assert source.receive(6) == b"answer"


@DIRECTIONS
def test_an_urgent_byte_does_not_stall_a_bulk_transfer(rig: Rig, upward: bool) -> None:
    source, sink = _source_and_sink(rig, upward)
    stream = Stream(7)

    def send() -> None:
        for _ in range(20):
            source.send_stream(stream, 400_000)
            source.send(stream.slice(source.sent, 1), socket.MSG_OOB)
            source.sent += 1
        source.end()

    sending = rig.run(send)
    assert sink.rest_of_stream(stream) is False
    sending.result()
    assert sink.received == source.sent == 20 * 400_001


@DIRECTIONS
def test_an_urgent_byte_at_the_end_of_a_bulk_transfer_arrives(rig: Rig, upward: bool) -> None:
    source, sink = _source_and_sink(rig, upward)
    stream, size = Stream(8), 8 << 20
    receiving = rig.run(sink.receive_stream, stream, size)
    source.send_stream(stream, size)
    source.send(b"!", socket.MSG_OOB)
    receiving.result()
    assert sink.receive(1) == b"!"
    source.send(b"?", socket.MSG_OOB)
    source.end()
    assert sink.rest() == Pause(b"?", reset=False)
