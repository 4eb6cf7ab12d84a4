"""Probes, tried on a running proxy: who is down gets no clients, who comes back does."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

from tests.authority import authority_pem, issued
from tests.control.test_children import child_of, in_namespace
from tests.store.editing import sqlite3_command
from tests.system.backends import ServingBackend
from tests.system.pop import Pop
from tests.system.programs import Program, haproxy, nginx
from tests.system.proxy import SERVE
from tests.waiting import wait_until

pytestmark = pytest.mark.system

QUICK = {
    "EDGEPROXY_HEALTH_CHECK_ENABLED": "true",
    "EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS": "0.2",
    "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "0.2",
}

PATIENT = {**QUICK, "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "20"}


def test_a_dead_backend_goes_down_before_a_client_meets_it(pop: Pop) -> None:
    backend = pop.dead_backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(**QUICK)
    down = proxy.wait_for("backend_down", backend="sa-1")
    assert down["fault"] == "connection refused"
    assert [pop.reached() for _ in range(5)] == ["us-1"] * 5

    backend.start()
    proxy.wait_for("backend_up", backend="sa-1")
    wait_until(lambda: pop.reached() == "sa-1", "the nearer one")
    assert proxy.stop()["failovers"] == "0"


def test_a_hung_backend_delays_no_other_verdict(pop: Pop) -> None:
    for number in range(5):
        pop.hung_backend(f"hung-{number}")
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        **{**QUICK, "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "60"},
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="1",
    )
    proxy.wait_for("backend_down", backend="dead")


def test_the_operators_column_is_never_written(pop: Pop) -> None:
    pop.dead_backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(**QUICK)
    proxy.wait_for("backend_down", backend="sa-1")
    assert sqlite3_command(pop.database, "SELECT healthy FROM backends").split() == ["1", "1"]


def test_where_all_are_called_down_all_are_tried(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        **QUICK, EDGEPROXY_HEALTH_CHECK_TYPE="exec", EDGEPROXY_HEALTH_CHECK_COMMAND="false"
    )
    proxy.wait_for("backend_down", backend="sa-1")
    proxy.wait_for("backend_down", backend="us-1")
    assert pop.reached() == "sa-1"


def test_without_panic_nobody_is_tried_where_all_are_down(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(
        **QUICK,
        EDGEPROXY_HEALTH_CHECK_TYPE="exec",
        EDGEPROXY_HEALTH_CHECK_COMMAND="false",
        EDGEPROXY_HEALTH_PANIC="false",
    )
    proxy.wait_for("backend_down", backend="sa-1")
    wait_until(lambda: pop.reached() == "", "the verdict to count")
    proxy.wait_for("client_refused", reason="down")


def test_a_backend_that_is_moved_is_judged_anew(pop: Pop) -> None:
    pop.dead_backend("sa-1")
    alive = pop.backend("spare", "us")
    proxy = pop.serve(**QUICK)
    proxy.wait_for("backend_down", backend="sa-1")
    proxy.edit(f"UPDATE backends SET wg_ip = '{alive.host}', port = {alive.port} WHERE id = 'sa-1'")
    wait_until(lambda: pop.reached() == "spare", "the new address")


# -- backends that expect a PROXY header and TLS --------------------------------------------

NAME = "backend.internal"


def answer_http(client: socket.socket) -> None:
    if client.recv(4096):
        client.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n")


def answer_grpc(client: socket.socket) -> None:
    """Say that no more calls are taken, and then that all is well, as a server that drains."""
    dialog = H2Connection(H2Configuration(client_side=False))
    dialog.initiate_connection()
    client.sendall(dialog.data_to_send())
    while data := client.recv(65536):
        for event in dialog.receive_data(data):
            if isinstance(event, StreamEnded):
                client.sendall(b"\0\0\x08\7\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0")
                dialog.send_headers(event.stream_id, [(":status", "200")])
                dialog.send_data(event.stream_id, b"\0\0\0\0\2\x08\1")
                dialog.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
        client.sendall(dialog.data_to_send())


def answer_nothing(client: socket.socket) -> None:
    client.recv(4096)


ANSWERS: dict[str, Callable[[socket.socket], None]] = {
    "tcp": answer_nothing,
    "http": answer_http,
    "grpc": answer_grpc,
}


def behind_haproxy(pop: Pop, behind: ServingBackend, name: str = NAME) -> Program:
    """Put haproxy, which expects a PROXY header and then TLS, before a backend."""
    both = pop.folder / f"{behind.id}.both"
    pair = issued(name)
    both.write_bytes(pair.chain + pair.key)
    return haproxy(
        pop.folder,
        f"listen a\n  mode tcp\n  bind LISTEN accept-proxy ssl crt {both} alpn h2,http/1.1\n"
        f"  server s {behind.host}:{behind.port}\n",
    )


def behind_nginx(pop: Pop, behind: ServingBackend) -> Program:
    cert, key = issued(NAME).put(pop.folder / behind.id, NAME)
    return nginx(
        pop.folder,
        f"server {{ listen LISTEN ssl proxy_protocol; ssl_certificate {cert};"
        f" ssl_certificate_key {key}; ssl_alpn h2 http/1.1;"
        f" proxy_pass {behind.host}:{behind.port}; }}",
    )


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("kind", ["tcp", "http", "grpc"])
def test_probes_speak_what_connections_of_clients_speak(pop: Pop, kind: str, version: str) -> None:
    """Real servers that take nothing else let probes through to what is behind them."""
    arrived: Counter[str] = Counter()

    def answering(name: str) -> ServingBackend:
        def answer(client: socket.socket) -> None:
            arrived[name] += 1
            ANSWERS[kind](client)

        return pop.keep(ServingBackend(name, answer))

    behind = [answering("haproxy"), answering("nginx")]
    for put_behind, backend in zip((behind_haproxy, behind_nginx), behind, strict=True):
        program = pop.keep(put_behind(pop, backend))
        program.id = backend.id
        pop.register(program)
    impostor = pop.keep(behind_haproxy(pop, behind[0], "somebody.else"))
    impostor.id = "impostor"
    pop.register(impostor)
    ca = pop.folder / "ca.pem"
    ca.write_bytes(authority_pem())
    proxy = pop.serve(
        **PATIENT,
        EDGEPROXY_HEALTH_CHECK_TYPE=kind,
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="1",
        EDGEPROXY_PROXY_PROTOCOL_OUT=version,
        EDGEPROXY_BACKEND_TLS=NAME,
        EDGEPROXY_BACKEND_TLS_CA=str(ca),
    )
    down = proxy.wait_for("backend_down", backend="impostor")
    assert down["fault"].startswith("TLS: Hostname mismatch")
    wait_until(lambda: min(arrived["haproxy"], arrived["nginx"]) >= 3, "probes behind both")
    assert [each["backend"] for each in proxy.seen("backend_down")] == ["impostor"]


def test_probes_trust_the_authorities_that_are_in_force(pop: Pop) -> None:
    behind = pop.keep(ServingBackend("a", ANSWERS["tcp"]))
    program = pop.keep(behind_haproxy(pop, behind))
    pop.register(program)
    ca = pop.folder / "ca.pem"
    ca.write_bytes(issued("other").cert)
    proxy = pop.serve(
        **PATIENT,
        EDGEPROXY_PROXY_PROTOCOL_OUT="v2",
        EDGEPROXY_BACKEND_TLS=NAME,
        EDGEPROXY_BACKEND_TLS_CA=str(ca),
    )
    assert proxy.wait_for("backend_down")["fault"].startswith("TLS: ")
    ca.write_bytes(authority_pem())
    proxy.wait_for("backend_up")


def test_each_app_is_probed_as_its_clients_are(pop: Pop) -> None:
    """The header of one app is not sent to the backends of another."""
    heard: dict[str, bytes] = {}

    def hear(name: str) -> Callable[[socket.socket], None]:
        return lambda client: heard.__setitem__(name, client.recv(4096))

    for app in ("old", "new", "none"):
        pop.register(pop.keep(ServingBackend(app, hear(app))), app=app)
    pop.serve(
        **PATIENT,
        EDGEPROXY_HEALTH_CHECK_TYPE="http",
        EDGEPROXY_PROXY_PROTOCOL_OUT="old=v1,new=v2",
    )
    wait_until(lambda: heard.keys() == {"old", "new", "none"}, "probes")
    assert heard["old"].startswith(b"PROXY UNKNOWN\r\n")
    assert heard["new"].startswith(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
    assert heard["none"].startswith(b"GET /health")


def flood(client: socket.socket) -> None:
    client.sendall(b"\0\0\0\4\0\0\0\0\0")
    while True:
        client.sendall(b"\0\0\x08\6\0\0\0\0\0to pings" * 4000)


def test_hostile_backends_hold_up_no_probe_of_others(pop: Pop) -> None:
    arrived: list[bytes] = []

    def answer(client: socket.socket) -> None:
        arrived.append(b"")
        answer_grpc(client)

    pop.register(pop.keep(ServingBackend("well", answer)))
    for number in range(10):
        pop.register(pop.keep(ServingBackend(f"hostile-{number}", flood)))
    proxy = pop.serve(
        **PATIENT,
        EDGEPROXY_HEALTH_CHECK_TYPE="grpc",
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="2",
    )
    for number in range(10):
        down = proxy.wait_for("backend_down", backend=f"hostile-{number}")
        assert down["fault"] == "no gRPC: no answer within 64 frames"
    before = len(arrived)
    wait_until(lambda: len(arrived) >= before + 3, "probes of the one that is well")
    assert not proxy.seen("backend_down", backend="well")


# -- commands ---------------------------------------------------------------------------------


def test_exit_codes_count_though_who_started_the_proxy_ignored_them(pop: Pop) -> None:
    pop.backend("sa-1")
    ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    proxy = pop.serve_with(
        (sys.executable, "-c", f"{ignore} os.execv(sys.argv[1], sys.argv[1:])", *SERVE),
        None,
        **PATIENT,
        EDGEPROXY_HEALTH_CHECK_TYPE="exec",
        EDGEPROXY_HEALTH_CHECK_COMMAND="sh -c 'exit 7'",
    )
    assert proxy.wait_for("backend_down")["fault"] == "the command ended with 7"


CHECK = """
test "$EDGEPROXY_API_TOKEN" || (setsid sh -c 'echo $$ >> FOLDER/orphans; sleep 0.2' &)
test -s FOLDER/orphans || sleep 0.2
exit ${EDGEPROXY_CHECK_ID#sa-}
"""
"""A check that leaves a process behind, and whose exit code is the number of its backend."""


def test_process_1_reaps_what_commands_leave_behind(pop: Pop) -> None:
    """And takes no exit code for that of another command."""
    script = pop.folder / "check"
    script.write_text(CHECK.replace("FOLDER", str(pop.folder)))
    for number in range(4):
        pop.backend(f"sa-{number}")
    proxy = pop.serve_with(
        (*in_namespace(), *SERVE),
        None,
        **PATIENT,
        EDGEPROXY_API_TOKEN="secret",
        EDGEPROXY_HEALTH_CHECK_TYPE="exec",
        EDGEPROXY_HEALTH_CHECK_COMMAND=f"sh {script}",
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="1",
    )
    process_1 = child_of(proxy.pid)
    try:
        orphans = pop.folder / "orphans"
        wait_until(
            lambda: orphans.exists() and len(orphans.read_text().split()) >= 20, "orphans", 120.0
        )
        proc = Path(f"/proc/{process_1}/root/proc")
        left = orphans.read_text().split()
        wait_until(lambda: not any((proc / each).exists() for each in left), "them to be reaped")
        for number in range(1, 4):
            down = proxy.wait_for("backend_down", backend=f"sa-{number}")
            assert down["fault"] == f"the command ended with {number}"
        assert not proxy.seen("backend_down", backend="sa-0")
    finally:
        os.kill(process_1, signal.SIGTERM)  # `unshare` does not pass it on
    proxy.last_words()
