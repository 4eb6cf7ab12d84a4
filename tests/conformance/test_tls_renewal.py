"""Certificates come and go; one that cannot be used changes nothing and says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeproxy.engine.contract import HandshakeFailure, ListenerSettings
from edgeproxy.engine.sockets import open_listener
from edgeproxy.engine.tls import Certificate, TlsError, TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.tls_certificates import OURS, authority, certificate
from tests.conformance.tls_peers import TlsPeer
from tests.conformance.tls_rig import NAME, TlsRig, own, running

OLD, NEW = own(), certificate("new.test").for_names("new.test")
SIGNED = certificate(NAME)
CUT = SIGNED.pem.replace(b"\nMI", b"\n!!", 1)
BAD = {
    "no certificate": TlsSettings((Certificate(b"", SIGNED.key_pem),)),
    "text": TlsSettings((Certificate(b"hello", SIGNED.key_pem),)),
    "broken certificate": TlsSettings((Certificate(CUT, SIGNED.key_pem),)),
    "broken chain": TlsSettings((Certificate(SIGNED.pem + CUT, SIGNED.key_pem),)),
    "no key": TlsSettings((Certificate(SIGNED.pem, b""),)),
    "locked key": TlsSettings((Certificate(SIGNED.pem, SIGNED.locked_key_pem),)),
    "other key": TlsSettings((Certificate(SIGNED.pem, certificate("other").key_pem),)),
    "second is bad": TlsSettings((OLD, Certificate(SIGNED.pem, b"", ("b.test",)))),
    "nobody to trust": TlsSettings((OLD,), client_ca_pem=b"hello"),
    "broken to trust": TlsSettings((OLD,), client_ca_pem=authority(OURS).pem + CUT),
}
ALL_BAD = pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))


@pytest.fixture
def rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


def _shown(client: TlsPeer) -> str:
    peer = client.tls.getpeercert()
    assert peer is not None
    ((_, name),) = peer["subjectAltName"]  # type: ignore[str-unpack]
    assert isinstance(name, str)
    return name


@ALL_BAD
def test_what_cannot_be_used_is_not_listened_with(rig: TlsRig, bad: TlsSettings) -> None:
    rig.serve()
    listening = open_listener("127.0.0.1", 0)
    with pytest.raises(TlsError) as error:
        rig.engine.listen("bad", listening, ListenerSettings(tls=bad))
    assert len(str(error.value)) > 20
    assert "PRIVATE" not in str(error.value)
    assert listening.fileno() == -1
    assert _shown(rig.shaken()) == NAME


@ALL_BAD
def test_what_cannot_be_used_does_not_take_the_place_of_what_can(
    rig: TlsRig, bad: TlsSettings
) -> None:
    rig.serve()
    with pytest.raises(TlsError):
        rig.engine.renew("main", bad)
    assert _shown(rig.shaken()) == NAME


def test_new_clients_are_met_with_new_certificates(rig: TlsRig) -> None:
    rig.serve()
    connected, server = rig.shaken(), rig.accept()
    shaking = rig.unshaken()
    shaking.sock.send_raw(shaking.sock.next_flight())
    shaking.sock.take_in()
    rig.engine.renew("main", TlsSettings((NEW,)))
    assert _shown(rig.shaken()) == "new.test"
    rig.accept()
    shaking.sock.shake_hands()
    assert _shown(shaking) == NAME
    other = rig.accept()
    for client, end in ((connected, server), (shaking, other)):
        client.send(b"question")
        assert end.receive(8) == b"question"
        end.send(b"answer")
        assert client.receive(6) == b"answer"


def test_new_settings_may_ask_for_more(rig: TlsRig) -> None:
    rig.serve()
    rig.engine.renew("main", TlsSettings((OLD,), handshake_secs=0.3))
    rig.unshaken()
    rig.gate.wait_for(lambda: rig.gate.departures, "it is gone")
    assert rig.gate.departures[0][2] == HandshakeFailure.HANDSHAKE_TIMEOUT


def test_a_listener_that_is_not_there_is_not_renewed(rig: TlsRig) -> None:
    rig.serve()
    rig.engine.renew("nobody", TlsSettings((NEW,)))
    assert _shown(rig.shaken()) == NAME


def test_certificates_may_change_all_the_time(rig: TlsRig) -> None:
    rig.serve()
    for index in range(50):
        shaking = rig.unshaken()
        shaking.sock.send_raw(shaking.sock.next_flight())
        rig.engine.renew("main", TlsSettings((NEW if index % 2 else OLD,)))
        shaking.sock.take_in()
        shaking.sock.shake_hands()
        server = rig.accept()
        shaking.send(b"x")
        assert server.receive(1) == b"x"
        shaking.close()
        server.close()
