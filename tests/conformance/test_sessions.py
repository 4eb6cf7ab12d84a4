"""Other threads may look at the sessions and run something on the gate thread."""

from __future__ import annotations

import threading
import time
from functools import partial

from edgeproxy.engine.contract import SessionInfo
from tests.conformance.peers import Pause
from tests.conformance.rig import Rig
from tests.waiting import wait_until


def test_a_new_engine_has_no_sessions(rig: Rig) -> None:
    rig.prepare()
    assert rig.engine.live() == 0
    assert rig.engine.sessions() == []
    assert rig.engine.kind in ("portable", "native")


def test_a_session_is_listed_with_its_ticket_client_and_counts(rig: Rig) -> None:
    began_at = time.monotonic()
    client, server = rig.pair()
    client.send(b"12345")
    assert server.receive(5) == b"12345"
    server.send(b"123")
    assert client.receive(3) == b"123"
    wait_until(lambda: rig.session()[3:5] == (5, 3), "the bytes are counted")
    session = rig.session()
    assert session.ticket is rig.gate.tickets[0]
    assert session.client == client.sock.getsockname() == rig.gate.clients[0]
    assert session.state == "open"
    assert 0 < session.secs < time.monotonic() - began_at
    assert rig.engine.live() == 1


def test_the_bytes_of_live_sessions_are_counted(rig: Rig) -> None:
    rig.pair()
    assert rig.engine.carried() == [(rig.gate.tickets[0], 0, 0)]
    client, server = rig.pair()
    client.send(b"12345")
    assert server.receive(5) == b"12345"
    server.send(b"123")
    assert client.receive(3) == b"123"
    first, second = rig.gate.tickets
    expected = {(first, 0, 0), (second, 5, 3)}
    wait_until(lambda: set(rig.engine.carried()) == expected, "the bytes are counted")
    for peer in (client, server):
        peer.close()
    wait_until(lambda: rig.engine.carried() == [(first, 0, 0)], "the ended one is gone")


def test_a_session_that_ended_is_listed_no_more(rig: Rig) -> None:
    client, server = rig.pair()
    client.close()
    assert server.rest() == Pause(b"", reset=False)
    server.close()
    rig.outcome()
    wait_until(lambda: rig.engine.sessions() == [], "no session is listed")
    assert rig.engine.live() == 0


def test_a_dialing_session_is_listed_with_the_ticket_of_its_latest_attempt(rig: Rig) -> None:
    rig.backend.fall_silent()
    rig.serve()
    rig.gate.route = [rig.refusing_address(), rig.backend.address]
    client = rig.connect()
    wait_until(lambda: len(rig.gate.tickets) == 2 and rig.engine.sessions(), "it is dialing")
    session = rig.session()
    assert session.ticket is rig.gate.tickets[1]
    assert session.state == "dialing"
    assert session[3:5] == (0, 0)
    client.reset()


def test_each_listener_gives_its_name(rig: Rig) -> None:
    rig.prepare()
    rig.listen("web")
    rig.listen("mail")
    rig.start()
    for name in ("mail", "web", "mail"):
        rig.connect(name)
        rig.accept()
    assert [ticket.listener for ticket in rig.gate.tickets] == ["mail", "web", "mail"]


def test_a_listener_may_be_added_while_running(rig: Rig) -> None:
    older = rig.pair()
    rig.listen("later")
    client, server = rig.connect("later"), rig.accept()
    client.send(b"hello")
    assert server.receive(5) == b"hello"
    older[0].send(b"x")
    assert older[1].receive(1) == b"x"


def test_calls_run_in_order_on_the_gate_thread(rig: Rig) -> None:
    rig.pair()
    ran: list[tuple[int, int]] = []

    def note(index: int) -> None:
        ran.append((index, threading.get_ident()))

    for index in range(100):
        rig.engine.call(partial(note, index))
    wait_until(lambda: len(ran) == 100, "all calls")
    assert [index for index, _ in ran] == list(range(100))
    assert {thread for _, thread in ran} == rig.gate.thread_ids
    assert threading.get_ident() not in rig.gate.thread_ids


def test_clients_are_served_between_calls_that_wait(rig: Rig) -> None:
    """However many calls wait, as when many readers ask at once, a client comes in between."""
    rig.serve()
    calls = [0]
    seen_after: list[int] = []
    rig.gate.after_opened = lambda: seen_after.append(len(calls))
    with rig.gate_thread_held():
        for index in range(1000):
            rig.engine.call(partial(calls.append, index))
        rig.connect()  # the kernel has accepted it
    wait_until(lambda: len(calls) == 1001 and seen_after, "all calls and the client")
    assert seen_after[0] < 100


def test_sessions_are_listed_in_slices_between_which_clients_are_served(rig: Rig) -> None:
    """Listing does not grow into one long turn: sessions beyond a slice are all there, once."""
    rig.serve()
    for _ in range(150):
        rig.connect()
    wait_until(lambda: len(rig.gate.tickets) == 150, "all are admitted")
    listed = [session.ticket for session in rig.engine.sessions()]
    assert len(listed) == len({id(ticket) for ticket in listed}) == 150
    assert len(rig.engine.carried()) == 150


def test_a_call_runs_soon_in_an_idle_engine(rig: Rig) -> None:
    rig.serve()
    wait_until(lambda: rig.gate.ticks > 0, "the engine runs")
    ticks = []
    for _ in range(20):
        before = rig.gate.ticks
        ran = threading.Event()
        rig.engine.call(ran.set)
        assert ran.wait(20)
        ticks.append(rig.gate.ticks - before)
    assert 0 in ticks, "a call does not wait for the next tick"


def test_a_call_made_before_the_start_runs_after_it(rig: Rig) -> None:
    rig.prepare()
    ran = threading.Event()
    rig.engine.call(ran.set)
    rig.start()
    assert ran.wait(5)


def test_a_call_may_make_another_call(rig: Rig) -> None:
    rig.serve()
    ran = threading.Event()
    rig.engine.call(lambda: rig.engine.call(ran.set))
    assert ran.wait(5)


def test_the_gate_is_ticked_about_once_a_second(rig: Rig) -> None:
    rig.serve()
    wait_until(lambda: rig.gate.ticks > 0, "the first tick")
    first, began_at = rig.gate.ticks, time.monotonic()
    wait_until(lambda: rig.gate.ticks >= first + 2, "two more ticks")
    assert time.monotonic() - began_at >= 1.2


def test_many_threads_may_look_while_sessions_come_and_go(rig: Rig) -> None:
    rig.serve()
    over = threading.Event()

    def look() -> int:
        looks = 0
        while not over.wait(0.001):
            for session in rig.engine.sessions():
                assert isinstance(session, SessionInfo)
                assert session.state in ("dialing", "open", "half_closed")
            assert rig.engine.live() >= 0
            rig.engine.call(lambda: None)
            looks += 1
        return looks

    looking = [rig.run(look) for _ in range(4)]
    for index in range(200):
        client, server = rig.pair()
        client.send(b"?")
        assert server.receive(1) == b"?"
        (client.reset if index % 2 else client.close)()
        server.close()
    over.set()
    assert all(each.result() > 0 for each in looking)


def test_where_the_backend_has_not_spoken_is_known_and_between_which_ends(rig: Rig) -> None:
    began_at = time.monotonic()
    first, first_server = rig.pair()
    second, second_server = rig.pair()
    second_server.send(b"123")
    assert second.receive(3) == b"123"
    ticket, other = rig.gate.tickets

    def silent() -> list[object]:
        return [each[0] for each in rig.engine.unanswered()]

    wait_until(lambda: silent() == [ticket], "the other one has spoken")
    ((_, port, is_half_closed, secs),) = rig.engine.unanswered()
    assert (port, is_half_closed) == (first.sock.getsockname()[1], False)
    assert 0 < secs < time.monotonic() - began_at
    (ends,) = rig.engine.ends({ticket})
    assert ends == (
        ticket,
        first.sock.getsockname(),
        first.sock.getpeername(),
        first_server.sock.getpeername(),
    )
    assert {each.ticket for each in rig.engine.ends({ticket, other})} == {ticket, other}
    assert rig.engine.ends(set()) == []
    first_server.end()
    wait_until(lambda: [each[2] for each in rig.engine.unanswered()] == [True], "half is over")
    first.close()
    wait_until(lambda: silent() == [], "it has ended")
