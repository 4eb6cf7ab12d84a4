"""Who reads slowly slows down who writes; memory stays bounded and no byte is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.engine.contract import CloseReason
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import SMALL_BUFFER, Rig

DIRECTIONS = pytest.mark.parametrize("upward", [True, False], ids=["to backend", "to client"])


def _limit_of_kernel_buffers(name: str) -> int:
    return int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2])


ENOUGH = (4 << 20) + _limit_of_kernel_buffers("tcp_rmem") + _limit_of_kernel_buffers("tcp_wmem")
"""More than may be on the way: the kernel grows the engine's own socket to the backend."""


def _writer_and_reader(rig: Rig, upward: bool) -> tuple[Peer, Peer]:
    client, server = rig.small_pair()
    return (client, server) if upward else (server, client)


@DIRECTIONS
def test_a_reader_that_stops_stops_the_writer_and_may_resume(rig: Rig, upward: bool) -> None:
    writer, reader = _writer_and_reader(rig, upward)
    stream = Stream(1)
    for _ in range(2):
        assert writer.send_until_blocked(stream, 2 * ENOUGH) < ENOUGH
        reader.receive_stream(stream, writer.sent - reader.received)
    writer.send_stream(stream, 10)
    reader.receive_stream(stream, 10)
    writer.end()
    assert reader.rest() == Pause(b"", reset=False)
    reader.end()
    outcome = rig.outcome()
    assert outcome.reason == CloseReason.FINISHED
    assert outcome.bytes_in + outcome.bytes_out == writer.sent == reader.received


@DIRECTIONS
def test_a_reader_of_small_portions_gets_everything(rig: Rig, upward: bool) -> None:
    writer, reader = _writer_and_reader(rig, upward)
    stream = Stream(2)
    writer.send_until_blocked(stream)
    while reader.received < writer.sent:
        reader.receive_stream(stream, min(1013, writer.sent - reader.received))


@DIRECTIONS
def test_a_blocked_direction_does_not_hold_up_the_other(rig: Rig, upward: bool) -> None:
    writer, reader = _writer_and_reader(rig, upward)
    flood, answer = Stream(3), Stream(4)
    writer.send_until_blocked(flood)
    sending = rig.run(reader.send_stream, answer, 5 << 20)
    writer.receive_stream(answer, 5 << 20)
    sending.result()
    reader.receive_stream(flood, writer.sent)


def test_both_directions_may_be_blocked_and_resume(rig: Rig) -> None:
    client, server = rig.small_pair()
    up, down = Stream(5), Stream(6)
    assert client.send_until_blocked(up, 2 * ENOUGH) < ENOUGH
    assert server.send_until_blocked(down, 2 * ENOUGH) < ENOUGH
    server.receive_stream(up, client.sent)
    client.receive_stream(down, server.sent)
    client.send_stream(up, 1)
    server.receive_stream(up, 1)


def test_a_client_that_floods_while_its_backend_is_dialed_is_stopped(rig: Rig) -> None:
    rig.serve_with_small_buffers()
    rig.backend.fall_silent()
    client = rig.connect(buffer=SMALL_BUFFER)
    stream = Stream(9)
    assert client.send_until_blocked(stream, 2 * ENOUGH) < ENOUGH
    rig.backend.relent()
    server = rig.accept()
    server.receive_stream(stream, client.sent)
    client.end()
    assert server.rest() == Pause(b"", reset=False)


@DIRECTIONS
def test_a_blocked_session_does_not_hold_up_others(rig: Rig, upward: bool) -> None:
    flood = Stream(7)
    for _ in range(2):
        writer, _reader = _writer_and_reader(rig, upward)
        writer.send_until_blocked(flood)
    client, server = rig.small_pair()
    client.send(b"quick")
    assert server.receive(5) == b"quick"
    server.send(b"answer")
    assert client.receive(6) == b"answer"


def test_a_fast_transfer_does_not_starve_a_quiet_session(rig: Rig) -> None:
    fast_client, fast_server = rig.pair()
    stream, total = Stream(8), 64 << 20
    sending = rig.run(fast_client.send_stream, stream, total)
    receiving = rig.run(fast_server.receive_stream, stream, total)
    quiet_client, quiet_server = rig.pair()
    answered_meanwhile = 0
    while not receiving.done():
        quiet_client.send(b"?")
        assert quiet_server.receive(1) == b"?"
        answered_meanwhile += 1
    sending.result()
    receiving.result()
    assert answered_meanwhile >= 5
