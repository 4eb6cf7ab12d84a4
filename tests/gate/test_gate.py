"""The gate turns admissions into answers, counts, and keeps quiet about repetition."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from edgeproxy import log
from edgeproxy.core.admission.access import AccessControl, AccessSettings, Denied
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.rate_limit import RateLimitSettings
from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.routing.choice import Reason
from edgeproxy.engine.contract import (
    Client,
    CloseReason,
    Connect,
    DialFailure,
    FirstAnswer,
    HandshakeFailure,
    Outcome,
    Refuse,
    Wait,
)
from edgeproxy.engine.listener import client_at
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
