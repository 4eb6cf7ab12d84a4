"""Several listeners: each for its app, on every kind of address, as they are configured."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.peers import Peer
from tests.system import clients
from tests.system.listeners import where
from tests.system.pop import BRAZIL, Pop
from tests.system.proxy import SERVE, run_edgeproxy
from tests.system.test_lifecycle import upgraded
from tests.system.test_metrics import METRICS, page_of, read, sample
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def over_unix(pop: Pop, path: Path) -> Peer:
    """Return a client of a Unix socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(path))
    peer = Peer.__new__(Peer)  # there is no delay to turn off
    peer.sock, peer.sent, peer.received = sock, 0, 0
    return pop.keep(peer)


def test_each_app_has_its_listener(pop: Pop) -> None:
    pop.backend("w1", app="web")
    pop.backend("d1", app="db")
    proxy = pop.serve(EDGEPROXY_LISTENERS="127.0.0.1:0=web,127.0.0.1:0=db,127.0.0.1:0=*,[::1]:0=no")
    assert {pop.reached() for _ in range(4)} == {"w1"}
    assert {clients.reached(where(proxy, "db")) for _ in range(4)} == {"d1"}
    everybody = {clients.reached(where(proxy, "*"), pop.new_address()) for _ in range(8)}
    assert everybody == {"w1", "d1"}
    assert clients.reached(where(proxy, "no")) == ""
    assert proxy.wait_for("client_refused")["reason"] == "no_backend"


def test_bindings_and_limits_are_those_of_the_app(pop: Pop) -> None:
    for number in (1, 2):
        pop.backend(f"w{number}", app="web")
        pop.backend(f"d{number}", app="db")
    proxy = pop.serve(EDGEPROXY_LISTENERS="127.0.0.1:0=web,127.0.0.1:0=db")
    web, db = proxy.address, where(proxy, "db")
    bound = clients.reached(web, BRAZIL), clients.reached(db, BRAZIL)
    assert (bound[0][0], bound[1][0]) == ("w", "d")
    for _ in range(3):
        assert (clients.reached(web, BRAZIL), clients.reached(db, BRAZIL)) == bound
    proxy.edit("UPDATE backends SET hard_limit = 1")
    for number in range(2):
        held = pop.keep(clients.connect(web, pop.new_address()))
        assert clients.greeting(held).startswith("w"), number
    assert clients.reached(web, pop.new_address()) == ""
    assert clients.reached(db, pop.new_address()).startswith("d")


def test_the_app_of_a_failover_stays_the_same(pop: Pop) -> None:
    pop.dead_backend("w1", app="web")
    pop.backend("d1", app="db")
    w2 = pop.backend("w2", "us", app="web")
    pop.serve(EDGEPROXY_LISTENERS="127.0.0.1:0=web,127.0.0.1:0=db")
    assert [pop.reached() for _ in range(3)] == ["w2"] * 3
    assert w2.total == 3


def test_a_dual_stack_listener_knows_ipv4_clients_by_their_own_address(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    log = pop.folder / "access.log"
    proxy = pop.serve(EDGEPROXY_LISTENERS="[::]:0=myapp", EDGEPROXY_ACCESS_LOG=str(log))
    assert proxy.seen("ready")[0]["listen"].startswith("[::]:")
    port = proxy.address[1]
    assert clients.reached(("127.0.0.1", port), BRAZIL) == "sa-1"
    assert clients.reached(("::1", port))
    proxy.stop()
    lines = {each["client"]: each for each in map(json.loads, log.read_text().splitlines())}
    assert lines.keys() == {BRAZIL, "::1"}
    assert lines[BRAZIL]["country"] == "BR"


# -- Unix sockets -------------------------------------------------------------------------


def test_a_unix_socket_is_a_listener_for_whom_its_directory_lets_pass(pop: Pop) -> None:
    pop.backend("sa-1")
    path, log = pop.folder / "door", pop.folder / "access.log"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    proxy = pop.serve(
        EDGEPROXY_LISTENERS=f"127.0.0.1:0=*,unix:{path}=myapp",
        EDGEPROXY_PROXY_PROTOCOL_OUT="other=v1",  # the engine is asked for local addresses
        EDGEPROXY_ACCESS_LOG=str(log),
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    client = over_unix(pop, path)
    assert clients.greeting(client) == "sa-1"
    client.send(b"bytes")
    client.end()
    assert client.rest() == (b"bytes", False)
    proxy.stop()
    assert not path.exists()
    assert json.loads(log.read_text())["client"] == "127.0.0.1"


def test_the_path_of_somebody_else_is_left_alone(pop: Pop) -> None:
    pop.backend("sa-1")
    path = pop.folder / "door"
    listeners = f"127.0.0.1:0=*,unix:{path}=myapp"
    proxy = pop.serve(EDGEPROXY_LISTENERS=listeners)

    other = pop.begin_to_serve(EDGEPROXY_LISTENERS=listeners)
    assert other.wait_for_exit() == 1
    assert "another proxy listens there" in "\n".join(other.foreign)
    other.foreign.clear()
    client = over_unix(pop, path)
    assert clients.greeting(client) == "sa-1"
    client.close()

    path.unlink()
    with socket.socket(socket.AF_UNIX) as heir:
        heir.bind(str(path))
        proxy.stop()
    assert path.exists()


def test_a_start_that_fails_leaves_no_path_behind(pop: Pop) -> None:
    path = pop.folder / "door"
    taken = pop.keep(socket.create_server(("127.0.0.1", 0)))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    proxy = pop.begin_to_serve(EDGEPROXY_LISTENERS=f"unix:{path}=*,{address}=*")
    assert proxy.wait_for_exit() == 1
    assert f"cannot listen on {address}" in "\n".join(proxy.foreign)
    proxy.foreign.clear()
    assert not path.exists()


# -- bad values, successors, systemd --------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0.0.0.0:8080", "is not ADDRESS=MODE"),
        ("8080=web", "ADDRESS:PORT"),
        ("::1:80=web", "[::]:8080"),
        ("0.0.0.0:99999=web", "65535"),
        ("0.0.0.0:80=udp:web", "allowed is the name of an app"),
        ("0.0.0.0:80=tls:", "allowed is the name of an app"),
        ("0.0.0.0:80=", "allowed is the name of an app"),
        ("0.0.0.0:80=a,0.0.0.0:80=b", "each address may occur only once"),
        ("[::]:80=a,[0:0::0]:80=b", "each address may occur only once"),
        ("unix:door=a", "unix:/PATH"),
        (f"unix:/{'x' * 107}=a", "107 bytes"),
    ],
)
def test_a_bad_value_is_named_at_the_start(pop: Pop, value: str, said: str) -> None:
    done = run_edgeproxy("serve", folder=pop.folder, EDGEPROXY_LISTENERS=value)
    assert done.returncode == 2
    assert "EDGEPROXY_LISTENERS" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_certificates_of_a_listener_are_checked_before_the_start(pop: Pop) -> None:
    done = run_edgeproxy(
        "config",
        "check",
        folder=pop.folder,
        EDGEPROXY_LISTENERS="0.0.0.0:443=tls:web",
        EDGEPROXY_TLS_CERT_DIR=str(pop.folder / "none"),
    )
    assert done.returncode == 1
    assert "none: " in done.stderr


def test_a_successor_takes_all_listeners(pop: Pop) -> None:
    pop.backend("w1", app="web")
    pop.backend("d1", app="db")
    path = pop.folder / "door"
    proxy = pop.serve(
        EDGEPROXY_LISTENERS=f"127.0.0.1:0=web,127.0.0.1:0=db,[::1]:0=sni,unix:{path}=db",
        EDGEPROXY_ROUTES="*=web",
    )
    web, db = proxy.address, where(proxy, "db")
    before = path.stat().st_ino
    holders = [pop.keep(clients.connect(each)) for each in (web, db)]
    assert [clients.greeting(each) for each in holders] == ["w1", "d1"]
    with upgraded(proxy):
        for _ in range(3):
            assert (clients.reached(web), clients.reached(db)) == ("w1", "d1")
        client = over_unix(pop, path)
        assert clients.greeting(client) == "d1"
        client.close()
        assert path.stat().st_ino == before
        for each in holders:
            each.send(b"still")
            each.end()
            assert each.rest() == (b"still", False)
    wait_until(lambda: not path.exists(), "the successor to remove its path")


def activated(pop: Pop, given: list[socket.socket], **variables: str) -> None:
    """Start a proxy as systemd does: sockets from descriptor 3 on, and LISTEN_PID is its own."""
    script = pop.folder / "starter.py"
    script.write_text(
        "import os, sys\n"
        "moved = [os.dup(int(fd)) for fd in sys.argv[1:]]\n"
        "moved = [os.dup2(fd, 100 + number, False) for number, fd in enumerate(moved)]\n"
        "for fd in sys.argv[1:]: os.close(int(fd))\n"
        "for number, fd in enumerate(moved): os.dup2(fd, 3 + number, inheritable=True)\n"
        "os.environ.update(LISTEN_FDS=str(len(moved)), LISTEN_PID=str(os.getpid()))\n"
        f"os.execv(sys.executable, {list(SERVE)!r})\n"
    )
    fds = [each.fileno() for each in given]
    for fd in fds:
        os.set_inheritable(fd, True)
    real = subprocess.Popen

    class WithSockets(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more, pass_fds=fds)  # type: ignore[call-overload]

    subprocess.Popen = WithSockets  # type: ignore[misc]
    try:
        pop.serve_with((sys.executable, str(script), *map(str, fds)), None, **variables)
    finally:
        subprocess.Popen = real  # type: ignore[misc]


def test_sockets_of_systemd_are_known_by_their_addresses(pop: Pop) -> None:
    pop.backend("w1", app="web")
    pop.backend("d1", app="db")
    with (
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.create_server(("127.0.0.1", 0)) as db,
        socket.create_server(("127.0.0.1", 0)) as unused,
    ):
        addresses = [each.getsockname() for each in (web, db, unused)]
        activated(
            pop,
            [db, unused, web],
            EDGEPROXY_LISTENERS=f"127.0.0.1:{addresses[0][1]}=web,127.0.0.1:{addresses[1][1]}=db",
        )
    assert pop.proxy.address == addresses[0]
    assert clients.reached(addresses[0]) == "w1"
    assert clients.reached(addresses[1]) == "d1"
    told = pop.proxy.wait_for("socket_unused")
    assert told["listen"] == f"127.0.0.1:{addresses[2][1]}"
    with pytest.raises(ConnectionRefusedError):
        clients.connect(addresses[2])


def test_a_socket_of_systemd_is_not_another_listeners(pop: Pop) -> None:
    """The first listener, whose address was not given, may not take the second one's socket."""
    pop.backend("w1", app="web")
    pop.backend("d1", app="db")
    with socket.create_server(("127.0.0.1", 0)) as db:
        port = db.getsockname()[1]
        activated(pop, [db], EDGEPROXY_LISTENERS=f"127.0.0.1:0=web,127.0.0.1:{port}=db")
    assert pop.reached() == "w1"
    assert clients.reached(("127.0.0.1", port)) == "d1"


def test_a_path_of_systemd_stays(pop: Pop) -> None:
    pop.backend("d1", app="db")
    path = pop.folder / "door"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        activated(pop, [given], EDGEPROXY_LISTENERS=f"127.0.0.1:0=db,unix:{path}=db")
        client = over_unix(pop, path)
        assert clients.greeting(client) == "d1"
        client.close()
        pop.proxy.stop()
        assert path.exists()


def test_metrics_and_sessions_are_of_all_listeners(pop: Pop) -> None:
    pop.backend("w1", app="web")
    pop.backend("d1", app="db")
    path, control = pop.folder / "door", str(pop.folder / "control")
    proxy = pop.serve(
        **METRICS,
        EDGEPROXY_CONTROL_SOCKET=control,
        EDGEPROXY_LISTENERS=f"127.0.0.1:0=web,127.0.0.1:0=db,unix:{path}=web",
    )
    pop.holder(BRAZIL)
    assert clients.greeting(pop.keep(clients.connect(where(proxy, "db"), BRAZIL))) == "d1"
    assert clients.greeting(over_unix(pop, path)) == "w1"
    text = read(page_of(pop))
    assert sample(text, "edgeproxy_connections_total") == 3
    assert sample(text, 'edgeproxy_backend_connections_active{backend="w1",region="sa"}') == 2
    told = run_edgeproxy("sessions", "--json", folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=control)
    found = sorted((each["client"], each["backend"]) for each in json.loads(told.stdout))
    assert found == [("127.0.0.1", "w1"), (BRAZIL, "d1"), (BRAZIL, "w1")]
