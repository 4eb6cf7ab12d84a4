"""The gate turns admissions into answers, counts, and keeps quiet about repetition."""

from __future__ import annotations

import io
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from edgeproxy import log
from edgeproxy.core.admission.access import AccessControl, AccessSettings, Denied
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.arrivals import Arrival
from edgeproxy.core.admission.loops import TURNED_AWAY, LoopGuard
from edgeproxy.core.admission.rate_limit import RateLimitSettings
from edgeproxy.core.admission.record import ConnectionRecord
from edgeproxy.core.admission.ticket import Inbound, Ticket, TicketDetails
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import BreakerSettings
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.geo.prefix import Network, network
from edgeproxy.core.metrics import MAX_DECISION_KINDS, Metrics
from edgeproxy.core.routing.choice import How, Reason
from edgeproxy.engine.contract import (
    Client,
    CloseReason,
    Connect,
    DialFailure,
    Enter,
    FirstAnswer,
    HandshakeFailure,
    Identified,
    NeedMore,
    Preamble,
    Refuse,
    Wait,
)
from edgeproxy.engine.listener import client_at
from edgeproxy.engine.session_states import Outcome, Side
from edgeproxy.engine.tls import TlsInfo
from edgeproxy.gate.gate import HINTS, AdmissionGate
from edgeproxy.gate.preamble import ListenerPolicy, PreambleFault, PreambleParser
from edgeproxy.gate.proxy_header_writer import ProxyHeaderWriter
from edgeproxy.log import LogSettings
from edgeproxy.wire import proxy_protocol
from edgeproxy.wire.proxy_header import Endpoint


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Collect what is logged."""
    stream = io.StringIO()
    log.start(LogSettings(), stream)
    yield stream
    log.stop()


def gate(
    *backends: Backend, access: AccessControl | None = None
) -> tuple[AdmissionGate, Metrics, Admission]:
    """Return a gate with these backends behind it."""
    admission = Admission(
        AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin, access=access
    )
    admission.publish(backends)
    metrics = Metrics()
    preamble_parser = PreambleParser({"web": ListenerPolicy()}, admission.server_names)
    return AdmissionGate(admission, metrics, preamble_parser, 2.5), metrics, admission


def backend(backend_id: str, **values: object) -> Backend:
    """Return a backend."""
    return Backend(backend_id, "myapp", "sa", "10.0.0.1", 8080, **values)  # type: ignore[arg-type]


def connect(answer: FirstAnswer) -> Connect:
    """Return the answer, which must be a Connect."""
    assert isinstance(answer, Connect), answer
    return answer


def test_a_client_is_given_an_address_and_a_timeout() -> None:
    made, metrics, _ = gate(backend("a"))
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web"), 0.0))
    assert (answer.address, answer.timeout_secs) == (("10.0.0.1", 8080), 2.5)
    assert metrics.accepted == 1


def test_one_client_is_the_same_over_ipv4_and_mapped_ipv6() -> None:
    made, _, admission = gate(backend("a"), backend("b"))
    made.opened(Client("192.0.2.1", 1, "web"), 0.0)
    made.opened(client_at(("::ffff:192.0.2.1", 2, 0, 0), "web"), 0.0)
    assert len(admission.affinity) == 1


ENDED = Outcome(CloseReason.FINISHED, 1, 1, 1.0)
ONE_TOKEN = RateLimitSettings(enabled=True, max_requests=1, window_secs=1000.0, burst=1)


def test_a_client_for_whom_no_slot_is_free_waits_and_gets_the_next_one() -> None:
    made, metrics, _ = gate(backend("a", hard_limit=1))
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    waits = made.opened(Client("192.0.2.1", 2, "web"), 1.0)
    assert isinstance(waits, Wait)
    assert isinstance(made.asked_again(waits.place, 1.1, is_last=False), Wait)
    assert isinstance(first.ticket, Ticket)
    made.closed(first.ticket, ENDED, 1.2)
    assert connect(made.asked_again(waits.place, 1.2, is_last=False))
    assert (metrics.accepted, metrics.refused.total()) == (2, 0)


def test_a_client_that_has_waited_in_vain_is_refused_and_counted_once() -> None:
    made, metrics, _ = gate(backend("a", hard_limit=1))
    connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    waits = made.opened(Client("192.0.2.1", 2, "web"), 1.0)
    assert isinstance(waits, Wait)
    assert made.asked_again(waits.place, 2.0, is_last=True) == Refuse(Reason.FULL)
    assert (metrics.accepted, metrics.refused) == (1, {Reason.FULL: 1})


def test_a_client_waits_for_its_own_last_connection_too() -> None:
    access = AccessControl(AccessSettings(max_conns_per_client=1))
    made, _, _ = gate(backend("a"), access=access)
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    waits = made.opened(Client("192.0.2.1", 2, "web"), 1.0)
    assert isinstance(waits, Wait)
    assert isinstance(made.asked_again(waits.place, 1.0, is_last=False), Wait)
    assert isinstance(first.ticket, Ticket)
    made.closed(first.ticket, ENDED, 1.2)
    assert connect(made.asked_again(waits.place, 1.2, is_last=True))


def test_who_finds_the_app_full_waits_in_line_with_the_others_of_that_app() -> None:
    made, _, _ = gate(backend("a", hard_limit=1))
    connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    first = made.opened(Client("192.0.2.2", 1, "web"), 1.0)
    second = made.opened(Client("2001:db8:1:2::1", 1, "web"), 1.0)
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert first.line == second.line
    assert (first.client, first.site) == ("192.0.2.2", "")
    assert (second.client, second.site) == ("2001:db8:1:2", "2001:db8:1")


def test_who_is_full_by_itself_waits_in_a_line_of_its_own() -> None:
    access = AccessControl(AccessSettings(max_conns_per_client=1))
    made, _, _ = gate(backend("a", hard_limit=3), access=access)
    for number in range(3):
        connect(made.opened(Client(f"192.0.2.{number}", 1, "web"), 0.0))
    waits = [made.opened(Client(f"192.0.2.{number}", 2, "web"), 1.0) for number in (0, 1, 0, 4)]
    lines = [wait.line for wait in waits if isinstance(wait, Wait)]
    assert lines[0] == lines[2]
    assert len(set(lines)) == 3  # the last one finds no slot


def _line(answer: FirstAnswer) -> object:
    """Return what a client waits for."""
    assert isinstance(answer, Wait), answer
    return answer.line


def test_an_end_frees_what_others_wait_for_in_its_app_and_of_its_client() -> None:
    access = AccessControl(AccessSettings(max_conns_per_client=1))
    made, _, _ = gate(backend("a", hard_limit=2), access=access)
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0)).ticket
    second = connect(made.opened(Client("192.0.2.2", 1, "web"), 0.0)).ticket
    of_app = _line(made.opened(Client("192.0.2.3", 1, "web"), 0.0))
    of_client = _line(made.opened(Client("192.0.2.1", 2, "web"), 0.0))
    assert isinstance(first, Ticket)
    assert isinstance(second, Ticket)
    assert {of_app, of_client} <= set(made.frees(first))
    assert of_app in made.frees(second)
    assert of_client not in made.frees(second)


def test_an_end_frees_what_others_of_its_site_wait_for() -> None:
    access = AccessControl(AccessSettings(max_conns_per_client=2, clients_per_site=1))
    made, _, _ = gate(backend("a"), access=access)
    tickets = [
        connect(made.opened(Client(f"2001:db8:1:{number}::1", 1, "web"), 0.0)).ticket
        for number in range(2)
    ]
    lines = [
        _line(made.opened(Client(f"2001:db8:1:{number}::1", 2, "web"), 0.0)) for number in (0, 2)
    ]
    for ticket in tickets:
        assert isinstance(ticket, Ticket)
        assert set(lines) <= set(made.frees(ticket))


def test_waiting_takes_one_token_and_not_one_each_time() -> None:
    access = AccessControl(AccessSettings(), ONE_TOKEN)
    made, _, admission = gate(backend("a", hard_limit=1), access=access)
    held = admission.admit("192.0.2.9", "", 0.0)
    assert isinstance(held, Ticket)
    waits = made.opened(Client("192.0.2.1", 1, "web"), 0.0)
    for _ in range(3):
        assert isinstance(waits, Wait)
        waits = made.asked_again(waits.place, 0.1, is_last=False)
    assert isinstance(waits, Wait)
    admission.closed(held, 0.2)
    assert connect(made.asked_again(waits.place, 0.2, is_last=False))


def test_a_client_without_a_token_does_not_wait() -> None:
    access = AccessControl(AccessSettings(), ONE_TOKEN)
    made, _, _ = gate(backend("a"), access=access)
    connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    assert made.opened(Client("192.0.2.1", 2, "web"), 0.0) == Refuse(Denied.RATE_LIMITED)


def test_what_ended_is_counted() -> None:
    made, metrics, admission = gate(backend("a"))
    answer = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    made.dialed(answer.ticket, 0.01, 0.0)  # type: ignore[arg-type]
    made.closed(answer.ticket, Outcome(CloseReason.FINISHED, 10, 20, 1.0), 1.0)  # type: ignore[arg-type]
    assert (metrics.bytes_in, metrics.bytes_out) == (10, 20)
    assert metrics.closed == {CloseReason.FINISHED: 1}
    assert admission.load.active() == {}


def test_a_failed_dial_goes_to_the_next_backend() -> None:
    made, metrics, _ = gate(backend("a"), backend("b"))
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    made.failed(first.ticket, DialFailure.REFUSED, 0.0)  # type: ignore[arg-type]
    assert metrics.failovers == 1
    assert metrics.dial_failures == {DialFailure.REFUSED: 1}


def test_a_local_fault_refuses_and_blames_no_backend() -> None:
    made, metrics, admission = gate(backend("a"), backend("b"))
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    answer = made.failed(first.ticket, DialFailure.LOCAL, 0.0)  # type: ignore[arg-type]
    assert answer == Refuse("no_resources")
    assert metrics.refused == {"no_resources": 1}
    assert admission.load.of("a").failures == admission.load.of("b").failures == 0


def test_a_hundred_refusals_are_one_line_with_the_reason(lines: io.StringIO) -> None:
    made, metrics, _ = gate()
    for port in range(100):
        assert made.opened(Client("192.0.2.1", port, "web"), 0.0) == Refuse("no_backend")
    made.opened(Client("192.0.2.1", 1, "web"), 11.0)
    log.stop()
    first, second = lines.getvalue().splitlines()
    assert "client_refused reason=no_backend client=192.0.2.1 suppressed=0" in first
    assert "suppressed=99" in second
    assert metrics.refused == {"no_backend": 101}


def test_every_reason_to_refuse_a_client_has_a_hint() -> None:
    reasons = {*Reason, *Denied, *PreambleFault, *HandshakeFailure}
    assert set(HINTS) == reasons


@pytest.mark.parametrize(("port", "source"), [(0, None), (4711, Endpoint("192.0.2.1", 4711))])
def test_a_backend_is_told_no_source_of_a_client_of_a_unix_socket(
    port: int, source: Endpoint | None
) -> None:
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    admission.publish([backend("a")])
    made = AdmissionGate(
        admission,
        Metrics(),
        PreambleParser({"web": ListenerPolicy()}, admission.server_names),
        2.5,
        header_writer=ProxyHeaderWriter([("", "v2")], "pop"),
    )
    answer = connect(made.opened(Client("192.0.2.1", port, "web", local=("192.0.2.9", 80)), 0.0))
    header = proxy_protocol.decode(answer.prefix)
    assert header is not None
    assert header.source == source


def logged(
    *backends: Backend, is_logged: bool = True
) -> tuple[AdmissionGate, Metrics, list[ConnectionRecord]]:
    """Return a gate with an access log, and what was written to it."""
    records: list[ConnectionRecord] = []
    admission = Admission(
        AdmissionSettings(),
        AffinitySettings(),
        EjectionSettings(),
        lambda ip: Origin(ip, "BR", "sa"),
        is_logged=is_logged,
    )
    admission.publish(backends)
    metrics = Metrics()
    policy = ListenerPolicy(address="0.0.0.0:443", expects_proxy_header=True)
    trusted = (ip_network("192.0.2.0/24"),)
    parser = PreambleParser({"web 1": policy}, admission.server_names, trusted)
    return AdmissionGate(admission, metrics, parser, 2.5, records.append), metrics, records


def test_the_record_of_a_session_says_how_its_client_came_in_and_who_ended_it() -> None:
    made, _, records = logged(backend("a"))
    info = TlsInfo("shop.example", "h2", "TLSv1.3", False)
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1", info), 0.0))
    assert isinstance(answer.ticket, Ticket)
    made.dialed(answer.ticket, 0.01, 0.0)
    made.closed(answer.ticket, Outcome("finished", 1, 2, 1.0, 0.25, Side.BACKEND), 1.0)
    (record,) = records
    assert record.inbound == Inbound(4711, "0.0.0.0:443", "shop.example", "h2", "TLSv1.3")
    assert (record.backend_app, record.backend_region) == ("myapp", "sa")
    assert (record.first_byte_secs, record.ended_by) == (0.25, "backend")


def test_the_record_of_a_refusal_says_how_its_client_came_in_and_whose_doing_it_was() -> None:
    made, _, records = logged()
    client = Client("192.0.2.1", 4711, "web 1")
    made.opened(client, 0.0)
    made.client_lost(client, HandshakeFailure.CLIENT_GONE, 0.0)
    made.client_lost(client, HandshakeFailure.HANDSHAKE_TIMEOUT, 0.0)
    assert [(each.end, each.ended_by) for each in records] == [
        ("no_backend", "proxy"),
        ("client_gone", "client"),
        ("handshake_timeout", "proxy"),
    ]
    assert {each.inbound for each in records} == {Inbound(4711, "0.0.0.0:443", None, None, None)}


def test_a_client_that_no_backend_answers_is_not_turned_away_by_the_proxy() -> None:
    made, _, records = logged(backend("a"))
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1"), 0.0))
    assert isinstance(answer.ticket, Ticket)
    made.failed(answer.ticket, DialFailure.REFUSED, 0.0)
    (record,) = records
    assert (record.end, record.ended_by, record.backend) == ("unreachable", "backend", "a")
    assert record.inbound is not None


def test_without_an_access_log_a_ticket_holds_nothing_of_it() -> None:
    made, _, _ = logged(backend("a"), is_logged=False)
    answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1"), 0.0))
    assert isinstance(answer.ticket, Ticket)
    assert answer.ticket.details is None
    assert not hasattr(TicketDetails(None), "inbound")


def test_decisions_are_counted_by_both_regions_and_how_they_came_about() -> None:
    made, metrics, _ = logged(backend("a"), backend("b"))
    client = Client("192.0.2.1", 4711, "web 1")
    first = connect(made.opened(client, 0.0))
    connect(made.opened(client, 0.0))
    assert isinstance(first.ticket, Ticket)
    made.failed(first.ticket, DialFailure.REFUSED, 0.0)
    assert metrics.decisions == {
        ("scored", "sa", "sa"): 1,
        ("bound", "unknown", "sa"): 1,
        ("failover", "sa", "sa"): 1,
    }


def test_sessions_and_first_bytes_are_counted_at_the_end() -> None:
    made, metrics, _ = logged(backend("a"))
    for first_secs in (0.02, None):
        answer = connect(made.opened(Client("192.0.2.1", 4711, "web 1"), 0.0))
        assert isinstance(answer.ticket, Ticket)
        made.closed(answer.ticket, Outcome("finished", 1, 2, 1.5, first_secs, Side.CLIENT), 1.0)
    assert (sum(metrics.session_secs.counts), metrics.session_secs.total) == (2, 3.0)
    assert (sum(metrics.first_byte_secs.counts), metrics.first_byte_secs.total) == (1, 0.02)


@pytest.mark.parametrize("said", [b"", b"PROXY TCP4 192.0"])
def test_a_client_that_leaves_by_itself_is_not_told_to_be_slow(
    lines: io.StringIO, said: bytes
) -> None:
    made, metrics, _ = logged()
    client = Client("192.0.2.1", 4711, "web 1")
    left = Preamble(said, is_all=True, has_ended=True)
    late = Preamble(said, is_all=True)
    assert made.preamble_read(client, left, 0.0) == Refuse("client_gone")
    assert made.preamble_read(client, late, 0.0) == Refuse("preamble_incomplete")
    log.stop()
    first, second = lines.getvalue().splitlines()
    assert first.startswith("client_left client=192.0.2.1")
    assert "TIMEOUT" not in first
    assert "EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS" in second
    assert metrics.refused == {"client_gone": 1, "preamble_incomplete": 1}


def test_kinds_of_decisions_are_bounded_whatever_regions_are_called() -> None:
    backends = [Backend(f"b{n}", "myapp", f"r{n}", "10.0.0.1", 80, hard_limit=1) for n in range(30)]
    made, metrics, _ = logged(*backends)
    for number in range(MAX_DECISION_KINDS - 20):
        metrics.decisions["scored", "sa", f"gone-{number}"] = 1
    for number in range(30):
        connect(made.opened(Client(f"192.0.2.{number}", 4711, "web 1"), 0.0))
    assert len(metrics.decisions) <= MAX_DECISION_KINDS + len(How)
    assert sum(metrics.decisions.values()) == MAX_DECISION_KINDS - 20 + 30


@pytest.mark.parametrize(
    ("reason", "why", "noted", "errors"),
    [
        (DialFailure.REFUSED, "", "refused", 1),
        (DialFailure.HANDSHAKE, "self-signed", "handshake: self-signed", 1),
        (DialFailure.NO_PORT, "", "no_port", 0),
        (DialFailure.LOCAL, "", "", 0),
    ],
)
def test_the_last_failed_dial_of_a_backend_is_noted_unless_the_host_is_to_blame(
    reason: DialFailure, why: str, noted: str, errors: int
) -> None:
    made, _, admission = gate(backend("a"))
    first = connect(made.opened(Client("192.0.2.1", 1, "web"), 0.0))
    assert isinstance(first.ticket, Ticket)
    made.failed(first.ticket, reason, 7.0, why)
    counters = admission.load.of("a").counters
    assert (counters.last_error, counters.errors) == (noted, errors)
    assert counters.last_error_at == (7.0 if noted else 0.0)


class Sessions:
    """Sessions whose backends have not spoken, as an engine would tell of them."""

    def __init__(self, loops: LoopGuard, descriptors: int) -> None:
        self.open: list[Ticket] = []
        self.closed: set[Ticket] = set()
        loops.watch(
            lambda: descriptors,
            lambda: [(ticket, 1 + number, False, 1.0) for number, ticket in enumerate(self.open)],
            lambda _tickets: (),
            self.closed.update,
        )


def test_a_client_that_goes_round_is_sent_elsewhere_or_refused(lines: io.StringIO) -> None:
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    admission.publish([backend("a")])
    metrics, loops = Metrics(), LoopGuard()
    parser = PreambleParser({"web": ListenerPolicy()}, admission.server_names)
    made = AdmissionGate(admission, metrics, parser, 2.5, loops=loops)
    sessions = Sessions(loops, 256)

    def come(address: str, port: int) -> Connect | Refuse:
        answer = made.opened(Client(address, port, "web"), 0.0)
        if isinstance(answer, Connect):
            assert isinstance(answer.ticket, Ticket)
            sessions.open.append(answer.ticket)
        assert not isinstance(answer, Wait)
        return answer

    port = 1
    while isinstance(come("192.0.2.1", port), Connect):
        port += 1
    assert len(sessions.open) < 256 // 8
    assert come("192.0.2.1", port) == Refuse("loop")
    assert isinstance(come("192.0.2.2", 1), Connect)
    assert metrics.refused == {"loop": 2}
    assert metrics.accepted == len(sessions.open)
    assert sum(admission.load.active().values()) == len(sessions.open)
    admission.publish([backend("a"), backend("b")])
    for number in range(metrics.refused["loop"], TURNED_AWAY):
        assert come("192.0.2.1", 100 + number) == Refuse("loop")
    assert sum(admission.load.active().values()) == len(sessions.open)
    answer = connect(come("192.0.2.1", 200))
    assert isinstance(answer.ticket, Ticket)
    assert answer.ticket.backend.id == "b"
    log.stop()
    assert lines.getvalue().count("client_refused") == 1
    assert "reason=loop client=192.0.2.1" in lines.getvalue()


def test_who_goes_round_takes_no_backend_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client can pretend it, by closing its own silent connections."""
    breaker = BreakerSettings(enabled=True)
    admission = Admission(
        AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin, breaker=breaker
    )
    admission.publish([backend("a"), backend("b")])
    loops = LoopGuard()
    monkeypatch.setattr(loops, "is_barred", lambda client, _backend: client == "192.0.2.1")
    loops.is_watching = True
    parser = PreambleParser({"web": ListenerPolicy()}, admission.server_names)
    made = AdmissionGate(admission, Metrics(), parser, 2.5, loops=loops)
    for port in range(1, 40):
        assert made.opened(Client("192.0.2.1", port, "web"), 0.0) == Refuse("loop")
    reached = set()
    for number in range(2, 10):
        ticket = connect(made.opened(Client(f"192.0.2.{number}", 1, "web"), 0.0)).ticket
        assert isinstance(ticket, Ticket)
        reached.add((ticket.backend.id, ticket.how))
    assert reached == {("a", "scored"), ("b", "scored")}


# -- clients that arrive before they ask for a backend ----------------------------------

HEADER = b"PROXY TCP4 %s 192.0.2.9 4711 443\r\n"
SNI = ListenerPolicy(routes_by_sni=True)
BALANCED = ListenerPolicy(expects_proxy_header=True)
BALANCED_SNI = ListenerPolicy(routes_by_sni=True, expects_proxy_header=True)


def _networks(*texts: str) -> tuple[Network, ...]:
    found = [network(text) for text in texts]
    return tuple(each for each in found if each is not None)


def guarded(
    policy: ListenerPolicy, *, burst: int = 100, **settings: object
) -> tuple[AdmissionGate, AccessControl, Metrics]:
    """Return a gate that lets in clients of one listener by these settings."""
    access = AccessControl(
        AccessSettings(**settings),  # type: ignore[arg-type]
        RateLimitSettings(enabled=True, max_requests=1, burst=burst),
    )
    admission = Admission(
        AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin, access=access
    )
    admission.publish([backend("a", hard_limit=0)])
    metrics = Metrics()
    parser = PreambleParser({"web": policy}, admission.server_names, _networks("10.0.0.0/8"))
    return AdmissionGate(admission, metrics, parser, 2.5), access, metrics


def arrived(made: AdmissionGate, address: str = "192.0.2.1") -> Client | None:
    """Return a client that has arrived from here, or None if it was refused."""
    client = Client(address, 4711, "web")
    answer = made.arrived(client, 0.0)
    return client._replace(entry=answer.entry) if isinstance(answer, Enter) else None


def test_a_denied_client_is_not_let_in() -> None:
    made, access, metrics = guarded(ListenerPolicy(), deny=_networks("192.0.2.0/24"))
    assert arrived(made) is None
    assert arrived(made, "198.51.100.1") is not None
    assert metrics.refused == {"denied": 1}
    assert (len(access.arrivals), len(access.rate)) == (1, 1)


def test_a_client_that_is_not_admitted_yet_counts_against_its_limit() -> None:
    made, access, metrics = guarded(SNI, max_conns_per_client=2)
    clients = [arrived(made), arrived(made)]
    assert arrived(made) is None
    assert metrics.refused == {"client_full": 1}
    for client in clients:
        assert client is not None
        made.client_lost(client, HandshakeFailure.HANDSHAKE_TIMEOUT, 0.0)
    assert access._inside == access.arrivals._counts == {}
    assert arrived(made) is not None


def test_a_client_pays_once_and_counts_until_its_session_ends() -> None:
    made, access, _ = guarded(ListenerPolicy(), burst=2, max_conns_per_client=1)
    client = arrived(made)
    assert client is not None
    answer = connect(made.opened(client, 0.0))
    assert access.rate.remaining("192.0.2.1", 0.0) == 1
    assert arrived(made) is None
    assert len(access.arrivals) == 0
    made.closed(answer.ticket, Outcome(CloseReason.FINISHED, 0, 0, 1.0), 0.0)  # type: ignore[arg-type]
    assert access._inside == access.arrivals._counts == {}


def test_a_client_for_whom_there_is_no_backend_holds_nothing() -> None:
    made, access, _ = guarded(ListenerPolicy(), max_conns_per_client=1)
    made._admission.publish([])
    client = arrived(made)
    assert client is not None
    assert made.opened(client, 0.0) == Refuse("no_backend")
    assert access._inside == access.arrivals._counts == {}


def test_a_client_that_the_engine_gives_up_is_no_refusal() -> None:
    made, access, metrics = guarded(SNI, max_conns_per_client=1)
    client = arrived(made)
    assert client is not None
    made.client_lost(client, CloseReason.ABORTED, 0.0)
    assert metrics.refused == {}
    assert access._inside == access.arrivals._counts == {}


def test_who_is_no_balancer_is_not_heard() -> None:
    made, access, metrics = guarded(BALANCED, max_conns_per_client=1)
    assert arrived(made) is None
    assert metrics.refused == {"proxy_untrusted": 1}
    assert len(access.arrivals) == 0


def test_a_balancer_is_no_client(lines: io.StringIO) -> None:
    """Its clients are checked, as soon as the header has told who they are."""
    made, access, metrics = guarded(
        BALANCED_SNI, deny=_networks("198.51.100.1"), max_conns_per_client=1
    )
    first, second, denied = (arrived(made, "10.0.0.1") for _ in range(3))
    assert first is not None
    assert second is not None
    assert denied is not None
    header = Preamble(HEADER % b"192.0.2.1", False)
    for _ in range(3):  # the server name is not there yet
        assert isinstance(made.preamble_read(first, header, 0.0), NeedMore)
    assert access.rate.remaining("192.0.2.1", 0.0) == 99
    assert made.preamble_read(second, header, 0.0) == Refuse("client_full")
    barred = made.preamble_read(denied, Preamble(HEADER % b"198.51.100.1", False), 0.0)
    assert barred == Refuse("denied")
    assert metrics.refused == {"client_full": 1, "denied": 1}
    assert access._inside == {"192.0.2.1": 1}
    made.client_lost(first, HandshakeFailure.HANDSHAKE_FAILED, 0.0)
    assert access._inside == access.arrivals._counts == {}
    log.stop()
    assert "reason=denied client=198.51.100.1" in lines.getvalue()


def test_a_client_of_a_balancer_pays_once() -> None:
    made, access, _ = guarded(BALANCED, max_conns_per_client=1)
    client = arrived(made, "10.0.0.1")
    assert client is not None
    known = made.preamble_read(client, Preamble(HEADER % b"192.0.2.1", False), 0.0)
    assert isinstance(known, Identified)
    answer = connect(made.opened(client.identified(known), 0.0))
    assert access.rate.remaining("192.0.2.1", 0.0) == 99
    assert access._inside == {"192.0.2.1": 1}
    made.closed(answer.ticket, Outcome(CloseReason.FINISHED, 0, 0, 1.0), 0.0)  # type: ignore[arg-type]
    assert access._inside == access.arrivals._counts == {}


def test_a_client_is_checked_again_if_its_listener_has_changed_since() -> None:
    made, access, _ = guarded(BALANCED, deny=_networks("10.0.0.1"), max_conns_per_client=1)
    client = arrived(made, "10.0.0.1")
    assert client is not None
    assert isinstance(client.entry, Arrival)
    made._preamble_parser.add({"web": ListenerPolicy()})
    assert isinstance(made.preamble_read(client, Preamble(b"", True), 0.0), Identified)
    assert made.opened(client, 0.0) == Refuse("denied")
    assert access._inside == access.arrivals._counts == {}


def test_nobody_is_let_in_who_takes_the_room_of_others() -> None:
    made, access, metrics = guarded(SNI)
    access.arrivals.room = 80
    clients = [arrived(made) for _ in range(12)]
    assert [client is not None for client in clients] == [True] * 10 + [False] * 2
    assert metrics.refused == {"client_setup_full": 2}
    assert arrived(made, "192.0.2.2") is not None
