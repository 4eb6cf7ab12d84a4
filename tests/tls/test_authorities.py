"""The file of those who sign the certificates of backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.engine.tls import TlsError
from edgeproxy.errors import EdgeProxyError
from edgeproxy.tls.authorities import Authorities, backend_authorities
from tests.authority import authority_pem, issued
from tests.events import Events, events_of


@pytest.fixture
def events() -> Iterator[Events]:
    with events_of("tls") as events:
        yield events


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority_pem())
    return path


def test_other_text_in_the_file_is_left_out(file: Path) -> None:
    file.write_bytes("# Főtanúsítvány\n".encode() + authority_pem() + b"\xff\n")
    assert Authorities(file).load() == authority_pem()


@pytest.mark.parametrize("text", [b"", b"nonsense", authority_pem()[:-30]])
def test_what_holds_no_certificate_is_told(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    with pytest.raises(TlsError, match=r"ca\.pem"):
        Authorities(file).load()


def test_what_is_new_is_returned_once(file: Path, events: Events) -> None:
    authorities = Authorities(file)
    authorities.load()
    assert authorities.reload() is None
    both = authority_pem() + issued("other").cert
    file.write_bytes(both)
    assert authorities.reload() == both == authorities.in_force
    assert authorities.reload() is None
    [told] = events.named("authorities")
    assert told["count"] == 2


def test_what_turns_bad_is_told_once_and_left(file: Path, events: Events) -> None:
    authorities = Authorities(file)
    authorities.load()
    for _ in range(2):
        file.write_bytes(b"nonsense")
        assert authorities.reload() is None
        assert authorities.reload() is None
        file.write_bytes(authority_pem())
        assert authorities.reload() is None
    file.unlink()
    assert authorities.reload() is None
    assert len(events.named("authorities_bad")) == 3


def test_without_a_file_the_authorities_of_the_system_count() -> None:
    assert backend_authorities(None) == (None, b"")


def test_a_file_is_read_and_a_bad_one_is_named_with_its_variable(file: Path) -> None:
    authorities, trusted = backend_authorities(file)
    assert authorities is not None
    assert trusted == authority_pem()
    assert authorities.reload() is None
    file.write_bytes(b"nonsense")
    with pytest.raises(EdgeProxyError, match=r"^EDGEPROXY_BACKEND_TLS_CA: .*ca\.pem"):
        backend_authorities(file)
