"""A bug in the gate ends the client concerned; the engine and everybody else go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from edgeproxy.engine.contract import Client, CloseReason, Connect, FirstAnswer
from tests.conformance.gates import GateBugError, ScriptedGate, Ticket
from tests.conformance.peers import Pause, Peer
from tests.conformance.rig import Rig
from tests.waiting import wait_until


def _assert_carried(client: Peer, server: Peer) -> None:
    client.send(b"still")
    assert server.receive(5) == b"still"
    server.send(b"alive")
    assert client.receive(5) == b"alive"


def _assert_engine_serves(rig: Rig) -> None:
    client, server = rig.pair()
    _assert_carried(client, server)


def test_raising_in_opened_closes_that_client(rig: Rig) -> None:
    older = rig.pair()
    rig.gate.raising = {"opened"}
    assert rig.connect().rest() == Pause(b"", reset=False)
    rig.gate.raising = set()
    _assert_carried(*older)
    _assert_engine_serves(rig)
    assert len(rig.gate.tickets) == 2


def test_raising_in_dialed_ends_that_session(rig: Rig) -> None:
    older = rig.pair()
    rig.gate.raising = {"dialed"}
    client = rig.connect()
    assert client.rest().data == b""
    assert rig.outcome(1)[:3] == (CloseReason.FAULT, 0, 0)
    assert rig.gate.tickets[1].calls == ["dialed", "closed"]
    assert rig.accept().rest().data == b""
    rig.gate.raising = set()
    _assert_carried(*older)
    _assert_engine_serves(rig)


def test_raising_in_failed_closes_that_client(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.refusing_address(), rig.backend.address))
    older = rig.pair()
    rig.gate.raising = {"failed"}
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert rig.wait_for_end(2).calls == ["failed"]
    rig.gate.raising = set()
    _assert_carried(*older)
    _assert_engine_serves(rig)


def test_raising_in_failed_after_a_timeout_closes_that_client(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, rig.backend.address, timeout_secs=0.3))
    rig.gate.raising = {"failed"}
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert rig.wait_for_end().calls == ["failed"]
    rig.gate.raising = set()
    _assert_engine_serves(rig)


@pytest.mark.parametrize("how", [Peer.close, Peer.reset], ids=["end", "reset"])
def test_raising_in_closed_is_survived(rig: Rig, how: Callable[[Peer], None]) -> None:
    older, (client, server) = rig.pair(), rig.pair()
    rig.gate.raising = {"closed"}
    how(client)
    server.rest()
    server.close()
    assert rig.wait_for_end(1).calls == ["dialed", "closed"]
    rig.gate.raising = set()
    _assert_carried(*older)
    _assert_engine_serves(rig)


def test_raising_in_closed_does_not_keep_other_sessions_from_being_closed(rig: Rig) -> None:
    pairs = [rig.pair() for _ in range(10)]
    rig.gate.raising = {"closed"}
    rig.engine.close_sessions()
    for client, server in pairs:
        assert client.rest() == server.rest() == Pause(b"", reset=False)
    rig.gate.raising = set()
    _assert_engine_serves(rig)


def test_raising_in_closed_does_not_keep_the_engine_from_stopping(rig: Rig) -> None:
    pairs = [rig.pair() for _ in range(10)]
    rig.gate.raising = {"closed"}
    rig.engine.stop()
    for client, server in pairs:
        assert client.rest() == server.rest() == Pause(b"", reset=False)
    assert rig.gate.unended() == []


def test_raising_in_tick_is_survived(rig: Rig) -> None:
    older = rig.pair()
    rig.gate.raising = {"tick"}
    ticks = rig.gate.ticks
    wait_until(lambda: rig.gate.ticks >= ticks + 2, "two more ticks")
    _assert_carried(*older)
    _assert_engine_serves(rig)


def test_raising_everywhere_during_a_storm_keeps_the_books(rig: Rig) -> None:
    rig.serve()
    methods = ["opened", "dialed", "closed", "tick"] * 20
    for index, method in enumerate(methods):
        rig.gate.raising = {method}
        client = rig.connect()
        with suppress(ConnectionError):  # the engine may have closed it already
            client.send(b"x")
        (client.reset if index % 2 else client.close)()
    rig.gate.raising = set()

    def is_over() -> bool:
        while rig.backend.has_waiting():
            rig.accept().close()
        return len(rig.gate.clients) == len(methods) and not rig.gate.unended()

    wait_until(is_over, "the storm is over")
    while rig.backend.has_waiting():
        rig.accept().close()
    _assert_engine_serves(rig)


def test_a_function_given_to_call_may_raise(rig: Rig) -> None:
    older = rig.pair()

    def fail() -> None:
        raise GateBugError("call")

    rig.engine.call(fail)
    _assert_carried(*older)
    _assert_engine_serves(rig)


def test_a_choice_of_sessions_to_close_may_raise(rig: Rig) -> None:
    older = rig.pair()

    def fail(_ticket: Ticket) -> bool:
        raise GateBugError("wanted")

    rig.engine.close_sessions(fail)
    _assert_carried(*older)
    _assert_engine_serves(rig)


class _AnswersNonsense(ScriptedGate):
    """Answers clients of the listener `nonsense` with something that is no answer."""

    def opened(self, client: Client, now: float) -> FirstAnswer:
        if client.listener == "nonsense":
            if client.entry is not None:
                self._leave(client)
            return "no answer"  # type: ignore[return-value]
        return super().opened(client, now)


def test_an_answer_that_is_none_closes_that_client(rig: Rig) -> None:
    rig.prepare(_AnswersNonsense(rig.backend.address))
    rig.listen("main")
    rig.listen("nonsense")
    rig.start()
    assert rig.connect("nonsense").rest() == Pause(b"", reset=False)
    _assert_engine_serves(rig)


@pytest.mark.parametrize(
    "address",
    [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("::1", 70_000), ("127.0.0.1\0", 80)],
    ids=repr,
)
def test_an_address_that_cannot_be_dialed_fails_or_closes(
    rig: Rig, address: tuple[str, int]
) -> None:
    rig.prepare(ScriptedGate(rig.backend.address))
    rig.gate.routes["odd"] = [address]
    rig.listen("main")
    rig.listen("odd")
    rig.start()
    assert rig.connect("odd").rest().data == b""
    rig.wait_for_end()
    _assert_engine_serves(rig)


class _TimeoutOfNoUse(ScriptedGate):
    """Gives a dial no time at all."""

    def opened(self, client: Client, now: float) -> FirstAnswer:
        answer = super().opened(client, now)
        return answer._replace(timeout_secs=0.0) if isinstance(answer, Connect) else answer


def test_a_dial_without_time_fails_or_succeeds_once(rig: Rig) -> None:
    rig.serve(_TimeoutOfNoUse(rig.silent_backend().address))
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert rig.wait_for_end().failure == "timeout"
