"""How serving ends: listeners first, then sessions that are asked to, then everything."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.engine.contract import CloseReason
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Stream
from tests.conformance.rig import SMALL_BUFFER, Rig
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

MANY, STUCK = 5000, 40
STOP_SECS = 10.0

# -- stop_accepting -------------------------------------------------------------------


def test_clients_that_have_connected_are_served_and_new_ones_are_not(rig: Rig) -> None:
    older_client, older_server = rig.pair()
    with rig.gate_thread_held():
        clients = [rig.connect() for _ in range(100)]
        for index, client in enumerate(clients):
            client.send(index.to_bytes(1, "big"))
        stopping = rig.run(rig.engine.stop_accepting)
    stopping.result()
    with pytest.raises(ConnectionRefusedError):
        rig.connect()
    assert {rig.accept().receive(1)[0] for _ in clients} == set(range(100))
    older_client.send(b"older")
    assert older_server.receive(5) == b"older"
    assert rig.engine.live() == 101


def test_all_listeners_are_closed(rig: Rig) -> None:
    rig.prepare()
    rig.listen("one")
    rig.listen("two")
    rig.start()
    rig.engine.stop_accepting()
    for name in ("one", "two"):
        with pytest.raises(ConnectionRefusedError):
            rig.connect(name)


def test_accepting_may_be_stopped_twice_and_during_a_dial(rig: Rig) -> None:
    rig.backend.fall_silent()
    rig.serve()
    client = rig.connect()
    wait_until(rig.engine.sessions, "the client is dialing")
    rig.engine.stop_accepting()
    rig.engine.stop_accepting()
    rig.backend.relent()
    server = rig.accept()
    client.send(b"served")
    assert server.receive(6) == b"served"


# -- close_sessions -------------------------------------------------------------------


def test_wanted_sessions_are_closed_and_others_go_on(rig: Rig) -> None:
    pairs = [rig.pair() for _ in range(3)]
    second = rig.gate.tickets[1]
    rig.engine.close_sessions(lambda ticket: ticket is second)
    assert pairs[1][0].rest() == pairs[1][1].rest() == Pause(b"", reset=False)
    assert rig.outcome(1).reason == CloseReason.ABORTED
    for client, server in (pairs[0], pairs[2]):
        client.send(b"x")
        assert server.receive(1) == b"x"
    assert rig.engine.live() == 2


def test_all_sessions_are_closed_by_default_and_new_clients_served(rig: Rig) -> None:
    pairs = [rig.pair() for _ in range(20)]
    rig.engine.close_sessions()
    for client, server in pairs:
        assert client.rest() == server.rest() == Pause(b"", reset=False)
    for index in range(20):
        assert rig.outcome(index).reason == CloseReason.ABORTED
    client, server = rig.pair()
    client.send(b"new")
    assert server.receive(3) == b"new"


def test_delivered_bytes_and_then_an_ordinary_end(rig: Rig) -> None:
    client, server = rig.pair()
    client.send(b"request")
    assert server.receive(7) == b"request"
    server.send(b"answer" * 1000)
    wait_until(lambda: rig.session().bytes_out == 6000, "the answer is handed over")
    rig.engine.close_sessions()
    assert rig.outcome()[:3] == (CloseReason.ABORTED, 7, 6000)
    assert client.rest() == Pause(b"answer" * 1000, reset=False)
    assert server.rest() == Pause(b"", reset=False)


@pytest.mark.parametrize("upward", [True, False], ids=["backend misses", "client misses"])
def test_a_side_that_would_miss_bytes_sees_a_reset(rig: Rig, upward: bool) -> None:
    client, server = rig.small_pair()
    writer, reader = (client, server) if upward else (server, client)
    stream = Stream(1)
    writer.send_until_blocked(stream)
    rig.engine.close_sessions()
    assert rig.outcome().reason == CloseReason.ABORTED
    assert reader.rest_of_stream(stream) is True
    assert reader.received < writer.sent
    assert writer.rest() == Pause(b"", reset=True)


def test_a_half_closed_session_is_closed(rig: Rig) -> None:
    client, server = rig.pair()
    client.end()
    assert server.rest() == Pause(b"", reset=False)
    rig.engine.close_sessions()
    assert client.rest() == Pause(b"", reset=False)
    assert rig.outcome().reason == CloseReason.ABORTED


def test_a_dialing_session_is_closed(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, rig.backend.address, timeout_secs=10))
    client = rig.connect()
    wait_until(rig.engine.sessions, "the client is dialing")
    rig.engine.close_sessions()
    assert client.rest() == Pause(b"", reset=False)
    assert rig.outcome()[:3] == (CloseReason.ABORTED, 0, 0)
    assert rig.gate.tickets[0].calls == ["closed"]


# -- stop -----------------------------------------------------------------------------


def test_stop_ends_every_session_and_tells_the_gate(rig: Rig) -> None:
    pairs = [rig.pair() for _ in range(200)]
    rig.engine.stop()
    assert [ticket.calls for ticket in rig.gate.tickets] == [["dialed", "closed"]] * 200
    assert {rig.outcome(index).reason for index in range(200)} == {CloseReason.ABORTED}
    for client, server in pairs:
        assert client.rest() == server.rest() == Pause(b"", reset=False)
    with pytest.raises(ConnectionRefusedError):
        rig.connect()


def test_stop_ends_sessions_in_every_state(rig: Rig) -> None:
    rig.serve_with_small_buffers()
    blocked, _ = rig.small_pair()
    blocked.send_until_blocked(Stream(2))
    half_closed, _ = rig.small_pair()
    half_closed.end()
    rig.backend.fall_silent()
    rig.connect()
    wait_until(lambda: len(rig.engine.sessions()) == 3, "all three live")
    rig.engine.stop()
    assert rig.gate.unended() == []
    assert {rig.outcome(index).reason for index in range(3)} == {CloseReason.ABORTED}


def test_stop_may_be_repeated_and_called_from_several_threads(rig: Rig) -> None:
    rig.pair()
    for each in [rig.run(rig.engine.stop) for _ in range(4)]:
        each.result()
    rig.engine.stop()
    assert rig.gate.tickets[0].calls == ["dialed", "closed"]


def test_an_engine_that_was_never_started_may_be_stopped(rig: Rig) -> None:
    rig.prepare()
    rig.listen()
    rig.engine.stop()
    rig.engine.stop()
    with pytest.raises(ConnectionRefusedError):
        rig.connect()


def test_a_stopped_engine_answers_as_an_empty_one(rig: Rig) -> None:
    rig.pair()
    rig.engine.stop()
    rig.engine.stop_accepting()
    rig.engine.close_sessions()
    rig.engine.call(lambda: None)
    assert rig.engine.live() == 0
    assert rig.engine.sessions() == []


@contextmanager
def _descriptors(count: int) -> Iterator[None]:
    """Let this process open so many; skip where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"{count} open files are needed, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _crowd() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.crowd"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(crowd: subprocess.Popen[str], **fields: object) -> dict[str, Any]:
    """Tell the crowd something, unless there is nothing to tell, and return what it says."""
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    if fields:
        crowd.stdin.write(json.dumps(fields) + "\n")
        crowd.stdin.flush()
    answer: dict[str, Any] = json.loads(crowd.stdout.readline())
    return answer


def test_stop_ends_five_thousand_sessions(rig: Rig) -> None:
    with _descriptors(2 * MANY + 500), _crowd() as crowd:
        plain, small = (("127.0.0.1", port) for port in _ask(crowd)["ports"])
        rig.prepare(ScriptedGate(plain))
        rig.gate.routes["small"] = [small]
        ports = [rig.listen()[1], rig.listen("small", buffer=SMALL_BUFFER)[1]]
        rig.start()
        assert _ask(crowd, ports=ports, clients=MANY, stuck=STUCK) == {"connected": MANY}
        assert rig.engine.live() == len(rig.engine.sessions()) == MANY
        rig.engine.stop()
        assert [ticket.calls for ticket in rig.gate.tickets] == [["dialed", "closed"]] * MANY
        outcomes = [ticket.outcome for ticket in rig.gate.tickets]
        assert {each.reason for each in outcomes if each} == {CloseReason.ABORTED}
        assert _ask(crowd, look=True) == {
            "plain": {"end": 2 * (MANY - STUCK)},
            "stuck": {"reset": 2 * STUCK},
        }
        assert crowd.wait(STOP_SECS) == 0
