"""Backends that are reached over TLS: real haproxy and nginx, and who is not whom he says."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.tls.self_signed import self_signed
from tests.authority import authority_pem, issued
from tests.system.backends import Backend
from tests.system.clients import greeting
from tests.system.pop import Pop
from tests.system.programs import Program, haproxy, nginx
from tests.system.proxy import RunningProxy
from tests.waiting import wait_until

pytestmark = pytest.mark.system

NAME = "backend.internal"


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    return issued(name).put(folder / name, name)


def behind_haproxy(pop: Pop, name: str, backend: Backend, *, announced: bool = False) -> Program:
    """Put haproxy, with a certificate for this name, before a backend."""
    cert, key = pair(pop.folder, name)
    both = pop.folder / f"{name}.both"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    accept = " accept-proxy" if announced else ""
    text = (
        f"listen a\n  mode tcp\n  bind LISTEN{accept} ssl crt {both}\n"
        f"  server s {backend.host}:{backend.port}\n"
    )
    return pop.keep(haproxy(pop.folder, text))


def behind_nginx(pop: Pop, name: str, backend: Backend) -> Program:
    cert, key = pair(pop.folder, name)
    text = (
        f"server {{ listen LISTEN ssl; ssl_certificate {cert}; ssl_certificate_key {key};"
        f" proxy_pass {backend.host}:{backend.port}; }}"
    )
    return pop.keep(nginx(pop.folder, text))


def started(pop: Pop, backend_id: str) -> Backend:
    backend = pop.keep(Backend(backend_id))
    backend.start()
    return backend


def register(pop: Pop, program: Program, backend_id: str, region: str = "sa") -> None:
    program.id = backend_id
    pop.register(program, region)


def serve(pop: Pop, **variables: str) -> RunningProxy:
    ca = pop.folder / "ca.pem"
    ca.write_bytes(authority_pem())
    return pop.serve(
        **{"EDGEPROXY_BACKEND_TLS": NAME, "EDGEPROXY_BACKEND_TLS_CA": str(ca), **variables}
    )


def test_real_servers_are_reached_over_tls(pop: Pop) -> None:
    register(pop, behind_haproxy(pop, NAME, started(pop, "a")), "haproxy")
    register(pop, behind_nginx(pop, NAME, started(pop, "b")), "nginx")
    proxy = serve(pop)
    assert {pop.reached() for _ in range(6)} == {"a", "b"}
    client = pop.client()
    assert greeting(client) in ("a", "b")
    client.send(b"x" * 1_000_000)
    client.end()
    assert client.rest() == (b"x" * 1_000_000, False)
    assert not proxy.seen("dial_failed")


def test_an_impostor_costs_nobody_anything_but_himself(pop: Pop) -> None:
    register(pop, behind_haproxy(pop, "somebody.else", started(pop, "a")), "impostor")
    register(pop, behind_haproxy(pop, NAME, started(pop, "b")), "honest", "us")
    proxy = serve(pop)
    assert [pop.reached() for _ in range(3)] == ["b"] * 3
    told = proxy.wait_for("dial_failed", backend="impostor", reason="handshake")
    assert "ostname mismatch" in told["why"]


def test_a_plain_backend_is_not_trusted_with_a_byte(pop: Pop) -> None:
    pop.backend("plain")
    register(pop, behind_haproxy(pop, NAME, started(pop, "b")), "honest", "us")
    proxy = serve(pop)
    assert pop.reached() == "b"
    proxy.wait_for("dial_failed", backend="plain", reason="handshake")


def test_a_proxy_header_goes_before_the_handshake(pop: Pop) -> None:
    register(pop, behind_haproxy(pop, NAME, started(pop, "a"), announced=True), "haproxy")
    serve(pop, EDGEPROXY_PROXY_PROTOCOL_OUT="v2")
    assert pop.reached() == "a"


def test_only_the_apps_that_are_named_are_spoken_to_in_tls(pop: Pop) -> None:
    program = behind_haproxy(pop, NAME, started(pop, "a"))
    program.id = "secret"
    pop.register(program, app="secret")
    pop.backend("plain", app="plain")
    proxy = serve(
        pop,
        EDGEPROXY_BACKEND_TLS=f"secret={NAME}",
        EDGEPROXY_LISTENERS="127.0.0.1:0=plain,127.0.0.2:0=secret",
    )
    assert pop.reached() == "plain"
    host, _, port = proxy.wait_for("listener_opened")["listen"].rpartition(":")
    proxy.address = (host, int(port))
    assert pop.reached() == "a"


def test_whom_to_trust_has_to_be_there(pop: Pop) -> None:
    pop.backend("a")
    proxy = pop.begin_to_serve(
        EDGEPROXY_BACKEND_TLS=NAME, EDGEPROXY_BACKEND_TLS_CA=str(pop.folder / "nobody.pem")
    )
    assert proxy.wait_for_exit() == 1
    assert "EDGEPROXY_BACKEND_TLS_CA" in "\n".join(proxy.foreign)


def test_the_file_of_whom_to_trust_is_followed(pop: Pop) -> None:
    register(pop, behind_haproxy(pop, NAME, started(pop, "a")), "haproxy")
    proxy = serve(pop)
    assert pop.reached() == "a"
    ca = pop.folder / "ca.pem"
    ca.write_bytes(b"nonsense")
    proxy.wait_for("authorities_bad")
    assert pop.reached() == "a"
    ca.write_bytes(self_signed(0.0)[0].chain_pem)
    wait_until(lambda: pop.reached() == "", "the backend to be distrusted")
    ca.write_bytes(authority_pem() * 2)
    wait_until(lambda: pop.reached() == "a", "the backend to be trusted again")
