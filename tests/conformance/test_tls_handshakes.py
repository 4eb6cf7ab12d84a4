"""What is agreed on with a client that speaks TLS: version, certificate, protocol, resumption."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from contextlib import suppress

import pytest

from edgeproxy.engine.contract import HandshakeFailure, Identified, ListenerSettings
from edgeproxy.engine.tls import TlsInfo, TlsSettings
from edgeproxy.host_name import host_name
from tests.conformance.engines import MakeEngine
from tests.conformance.tls_certificates import (
    OURS,
    authority,
    certificate,
    expired_certificate,
    named_certificate,
)
from tests.conformance.tls_peers import TlsPeer, client_context, load
from tests.conformance.tls_rig import NAME, TlsRig, own, running

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V1_2, V1_3], ids=["1.2", "1.3"])

EXACT = certificate("a.test")
WILD = certificate("*.wild.test")
BOTH = certificate("both.wild.test")
CERTIFICATES = TlsSettings(
    (
        own(),
        EXACT.for_names("a.test", "MIXED.test"),
        WILD.for_names("*.wild.test"),
        BOTH.for_names("both.wild.test"),
    )
)


@pytest.fixture
def rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


def _info(rig: TlsRig) -> TlsInfo:
    rig.gate.wait_for(lambda: rig.gate.abouts, "the gate is asked")
    about = rig.gate.abouts[-1]
    assert isinstance(about, TlsInfo)
    return about


def _is_served(rig: TlsRig, client: TlsPeer) -> bool:
    server = rig.accept()
    client.send(b"ping")
    assert server.receive(4) == b"ping"
    server.send(b"pong")
    return client.receive(4) == b"pong"


def _assert_left(
    rig: TlsRig,
    reason: HandshakeFailure = HandshakeFailure.HANDSHAKE_FAILED,
    served_before: int = 0,
) -> None:
    rig.gate.wait_for(lambda: rig.gate.departures, "somebody has left")
    assert [each[2] for each in rig.gate.departures] == [reason]
    assert len(rig.gate.tickets) == served_before


def _is_turned_away(rig: TlsRig, client: TlsPeer, served_before: int = 0) -> bool:
    """Shake hands in vain; a client of TLS 1.3 learns of that only when it reads."""
    try:
        client.sock.shake_hands()
        client.receive(1)
    except OSError:  # as errors of TLS are
        _assert_left(rig, served_before=served_before)
        return True
    return False


# -- versions ---------------------------------------------------------------------------


@VERSIONS
def test_these_versions_are_spoken(rig: TlsRig, version: ssl.TLSVersion) -> None:
    rig.serve()
    assert _is_served(rig, rig.shaken(context=client_context(version=version)))
    assert _info(rig) == TlsInfo(NAME, "", version.name.replace("_", "."), False)


@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1"])
def test_nothing_older_is(rig: TlsRig, name: str) -> None:
    rig.serve()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = client_context(version=ssl.TLSVersion[name])
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert _is_turned_away(rig, rig.unshaken(context=context))


@pytest.mark.parametrize(
    "ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "AES256-GCM-SHA384"]
)
def test_weak_ciphers_are_not_agreed_on(rig: TlsRig, ciphers: str) -> None:
    rig.serve()
    context = client_context(version=V1_2)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    assert _is_turned_away(rig, rig.unshaken(context=context))


def test_the_clients_order_of_ciphers_counts(rig: TlsRig) -> None:
    rig.serve()
    for cipher in ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-GCM-SHA384"):
        context = client_context(version=V1_2)
        context.set_ciphers(f"{cipher}:ECDHE-ECDSA-AES128-GCM-SHA256")
        client = rig.shaken(context=context)
        agreed = client.tls.cipher()
        assert agreed is not None
        assert agreed[0] == cipher


# -- names ------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.test", "a.test"),
        ("A.Test", "a.test"),
        ("mixed.test", "a.test"),
        ("one.wild.test", "*.wild.test"),
        ("both.wild.test", "both.wild.test"),
        ("two.one.wild.test", NAME),
        ("wild.test", NAME),
        ("nobody.test", NAME),
        ("test", NAME),
        ("a.test.", "a.test"),
        ("A.TEST.", "a.test"),
        ("One.Wild.Test.", "*.wild.test"),
        (None, NAME),
    ],
)
def test_the_certificate_is_that_of_the_name(
    rig: TlsRig, name: str | None, shown: str, version: ssl.TLSVersion
) -> None:
    rig.serve_tls(CERTIFICATES)
    context = client_context(version=version)
    client = rig.shaken(context=context, name=name)
    peer = client.tls.getpeercert()
    assert peer is not None
    assert peer["subjectAltName"] == (("DNS", shown),)
    assert _info(rig).server_name == (host_name(name or "") or "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_name_that_is_no_text_is_refused(rig: TlsRig) -> None:
    """By both engines: server names are ASCII, and the system's libraries insist on it."""
    rig.serve()
    client = rig.unshaken(name="abcde.test")
    hello = client.sock.next_flight()
    assert b"abcde.test" in hello
    client.sock.send_raw(hello.replace(b"abcde.test", b"abc\xffe.test"))
    with suppress(OSError):
        client.sock.take_in()
    _assert_left(rig)


# -- ALPN -------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("name", [NAME, "a.test"])
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"), (("http/1.1",), "http/1.1"),
     (("spdy/3", "h2"), "h2"), ((), "")],
)  # fmt: skip
def test_the_best_protocol_that_both_know_is_chosen(
    rig: TlsRig, offered: tuple[str, ...], chosen: str, name: str, version: ssl.TLSVersion
) -> None:
    rig.serve_tls(TlsSettings((own(), EXACT.for_names("a.test")), alpn=("h2", "http/1.1")))
    client = rig.shaken(context=client_context(version=version, alpn=offered), name=name)
    assert (client.tls.selected_alpn_protocol() or "") == chosen
    assert _info(rig).alpn == chosen


@VERSIONS
@pytest.mark.parametrize("name", [NAME, "a.test", None])
@pytest.mark.parametrize("knows_clients", [False, True], ids=["anybody", "with certificate"])
def test_a_client_that_knows_none_of_our_protocols_is_told_so(
    rig: TlsRig, name: str | None, version: ssl.TLSVersion, knows_clients: bool
) -> None:
    certificates = (own(), EXACT.for_names("a.test"))
    trusted = authority(OURS).pem if knows_clients else b""
    rig.serve_tls(TlsSettings(certificates, ("h2", "http/1.1"), trusted))
    offers = ("spdy/3", "x" * 255, *(f"p{number}" for number in range(300)))
    context = client_context(version=version, alpn=offers, shows=certificate("client"))
    client = rig.unshaken(context=context, name=name)
    with pytest.raises(ssl.SSLError, match="alert no application protocol"):
        client.sock.shake_hands()
    _assert_left(rig)


def test_without_protocols_the_clients_wish_is_ignored(rig: TlsRig) -> None:
    rig.serve()
    client = rig.shaken(context=client_context(alpn=("h2",)))
    assert client.tls.selected_alpn_protocol() is None
    assert _is_served(rig, client)


# -- resumption -------------------------------------------------------------------------


def _session_of(client: TlsPeer) -> ssl.SSLSession:
    client.sock.setblocking(False)
    with suppress(BlockingIOError):
        client.sock.recv(1)  # the tickets
    session = client.tls.session
    assert session is not None
    return session


@VERSIONS
@pytest.mark.parametrize("name", [NAME, "a.test"])
def test_a_client_that_comes_again_resumes(rig: TlsRig, name: str, version: ssl.TLSVersion) -> None:
    rig.serve_tls(TlsSettings((own(), EXACT.for_names("a.test"))))
    context = client_context(version=version)
    first = rig.shaken(context=context, name=name)
    assert _is_served(rig, first)
    session = _session_of(first)
    second = rig.shaken(context=context, name=name, session=session)
    assert second.tls.session_reused
    assert _is_served(rig, second)
    assert [each.is_resumed for each in rig.gate.abouts] == [False, True]  # type: ignore[attr-defined]
    assert [each.server_name for each in rig.gate.abouts] == [name] * 2  # type: ignore[attr-defined]


def _remembered(rig: TlsRig, context: ssl.SSLContext, name: str) -> ssl.SSLSession | None:
    """Be served once; return what to come again with, if there is anything."""
    client = rig.shaken(context=context, name=name)
    assert _is_served(rig, client)
    client.sock.setblocking(False)
    with suppress(BlockingIOError):
        client.sock.recv(1)
    return client.tls.session


TICKETS = pytest.mark.parametrize("tickets", [True, False], ids=["with tickets", "without"])


@VERSIONS
@TICKETS
@pytest.mark.parametrize("name", [NAME, "a.test"])
def test_a_certificate_is_shown_and_judged_on_every_connection(
    rig: TlsRig, name: str, version: ssl.TLSVersion, tickets: bool
) -> None:
    """No session outlives the certificate that it stands for."""
    rig.serve_tls(
        TlsSettings((own(), EXACT.for_names("a.test")), client_ca_pem=authority(OURS).pem)
    )
    context = client_context(version=version, shows=certificate("client"))
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    session = _remembered(rig, context, name)
    again = rig.shaken(context=context, name=name, session=session)
    assert not again.tls.session_reused
    assert _is_served(rig, again)
    assert [each.is_resumed for each in rig.gate.abouts] == [False, False]  # type: ignore[attr-defined]
    load(context, expired_certificate("client"))
    assert _is_turned_away(rig, rig.unshaken(context=context, name=name, session=session), 2)


OTHER_SETTINGS = {
    "a certificate is wanted": TlsSettings((own(),), client_ca_pem=authority(OURS).pem),
    "another authority": TlsSettings((own(),), client_ca_pem=authority("another authority").pem),
    "other protocols": TlsSettings((own(),), alpn=("h2",)),
    "the same": TlsSettings((own(),)),
}


@VERSIONS
@TICKETS
@pytest.mark.parametrize("change", OTHER_SETTINGS)
@pytest.mark.parametrize("knows_clients", [False, True], ids=["anybody", "with certificate"])
def test_no_session_outlives_the_settings_of_its_listener(
    rig: TlsRig, change: str, version: ssl.TLSVersion, tickets: bool, knows_clients: bool
) -> None:
    trusted = authority(OURS).pem if knows_clients else b""
    rig.serve_tls(TlsSettings((own(),), client_ca_pem=trusted))
    context = client_context(version=version, shows=certificate("client"), alpn=("h2",))
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    session = _remembered(rig, context, NAME)
    rig.engine.renew("main", OTHER_SETTINGS[change])
    again = rig.unshaken(context=context, session=session)
    if change == "another authority":
        assert _is_turned_away(rig, again, 1)
        return
    again.sock.shake_hands(not OTHER_SETTINGS[change].client_ca_pem)
    assert not again.tls.session_reused
    assert _is_served(rig, again)


@VERSIONS
def test_after_other_certificates_nobody_resumes_and_everybody_is_served(
    rig: TlsRig, version: ssl.TLSVersion
) -> None:
    rig.serve()
    context = client_context(version=version)
    session = _session_of(rig.shaken(context=context))
    rig.accept()
    rig.engine.renew("main", TlsSettings((EXACT.for_names(NAME),)))
    second = rig.shaken(context=context, session=session)
    assert not second.tls.session_reused
    assert _is_served(rig, second)


# -- certificates of clients --------------------------------------------------------------


def _serve_known(rig: TlsRig) -> None:
    rig.serve_tls(
        TlsSettings((own(), EXACT.for_names("a.test")), client_ca_pem=authority(OURS).pem)
    )


@VERSIONS
@pytest.mark.parametrize("name", [NAME, "a.test"])
def test_a_client_with_a_trusted_certificate_is_served(
    rig: TlsRig, version: ssl.TLSVersion, name: str
) -> None:
    _serve_known(rig)
    context = client_context(version=version, shows=certificate("client"))
    assert _is_served(rig, rig.shaken(context=context, name=name))
    info = _info(rig)
    assert (info.has_certificate, info.common_name) == (True, "client")


@pytest.mark.parametrize("common_name", ["", "Jürgen", "two\nlines", "x" * 64])
def test_the_common_name_is_told_as_it_is(rig: TlsRig, common_name: str) -> None:
    rig.serve_tls(TlsSettings((own(),), client_ca_pem=authority(OURS).pem))
    shows = named_certificate(common_name)
    assert _is_served(rig, rig.shaken(context=client_context(shows=shows)))
    info = _info(rig)
    assert (info.has_certificate, info.common_name) == (True, common_name)


@VERSIONS
@pytest.mark.parametrize("name", [NAME, "a.test"])
@pytest.mark.parametrize("shows", [False, True], ids=["none", "an untrusted one"])
def test_a_client_without_one_is_not(
    rig: TlsRig, version: ssl.TLSVersion, name: str, shows: bool
) -> None:
    _serve_known(rig)
    stranger = certificate("client", signed_by="another authority")
    context = client_context(version=version, shows=stranger if shows else None)
    assert _is_turned_away(rig, rig.unshaken(context=context, name=name))


@VERSIONS
def test_any_of_several_authorities_is_trusted(rig: TlsRig, version: ssl.TLSVersion) -> None:
    both = authority("another authority").pem + authority(OURS).pem
    rig.serve_tls(TlsSettings((own(),), client_ca_pem=both))
    for signed_by in (OURS, "another authority"):
        shows = certificate("client", signed_by=signed_by)
        context = client_context(version=version, shows=shows)
        assert _is_served(rig, rig.shaken(context=context))


@VERSIONS
def test_a_client_that_does_not_trust_us_leaves(rig: TlsRig, version: ssl.TLSVersion) -> None:
    rig.serve()
    context = client_context(version=version, trusts=authority("another authority"))
    client = rig.unshaken(context=context)
    with pytest.raises(ssl.SSLCertVerificationError):
        client.sock.shake_hands()
    client.sock.send_raw(client.sock.leftover())
    _assert_left(rig)


def test_what_was_said_before_the_handshake_is_told_with_it(rig: TlsRig) -> None:
    rig.prepare()
    rig.gate.read_preamble = lambda _preamble: Identified(0, None, "said before")
    settings = ListenerSettings(preamble_secs=5.0, tls=TlsSettings((own(),)))
    rig.listen(settings=settings)
    rig.start()
    rig.shaken()
    rig.accept()
    (info,) = rig.gate.abouts
    assert isinstance(info, TlsInfo)
    assert (info.server_name, info.about) == (NAME, "said before")
