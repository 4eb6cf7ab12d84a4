"""How a proxy begins and ends: removed backends, spread closes, systemd, successors."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

from tests.conformance.peers import Peer
from tests.store.editing import execute
from tests.system.clients import connect, greeting
from tests.system.pop import BRAZIL, Pop
from tests.system.proxy import SERVE, RunningProxy, run_edgeproxy
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system


def test_connections_of_a_removed_backend_are_kept(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve()
    client, _ = pop.holder()
    proxy.edit("DELETE FROM backends WHERE id = 'sa-1'")
    assert pop.reached() == "us-1"
    client.send(b"still here")
    client.end()
    assert client.rest() == (b"still here", False)


def test_connections_of_a_removed_backend_are_closed_if_that_is_wanted(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(EDGEPROXY_ON_REMOVE="close")
    client, _ = pop.holder()
    other, _ = pop.holder(BRAZIL)
    proxy.edit("UPDATE backends SET deleted = 1 WHERE id = 'sa-1'")
    assert client.rest() == (b"", False)
    assert other.rest() == (b"", False)
    assert pop.reached() == "us-1"


def test_connections_of_a_removed_backend_have_a_while_if_that_is_wanted(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ON_REMOVE="drain:1")
    client, _ = pop.holder()
    began = time.monotonic()
    proxy.edit("DELETE FROM backends")
    assert client.rest() == (b"", False)
    assert time.monotonic() - began >= 0.9
    proxy.wait_for("removed_sessions_closed", backend="sa-1", connections="1")


def test_a_backend_that_is_back_in_time_keeps_its_connections(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ON_REMOVE="drain:0.5")
    client, _ = pop.holder()
    proxy.edit("UPDATE backends SET deleted = 1")
    proxy.edit("UPDATE backends SET deleted = 0")
    PAUSE.wait(1.0)
    client.send(b"x")
    client.end()
    assert client.rest() == (b"x", False)


def test_each_removal_gives_all_of_its_time(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ON_REMOVE="drain:2")
    client, _ = pop.holder()
    proxy.edit("UPDATE backends SET deleted = 1")
    proxy.edit("UPDATE backends SET deleted = 0")
    PAUSE.wait(1.0)
    began = time.monotonic()
    proxy.edit("UPDATE backends SET deleted = 1")
    assert client.rest() == (b"", False)
    assert time.monotonic() - began >= 1.9


def ends_of(clients: list[Peer]) -> list[float]:
    """Return when each of them was closed (monotonic seconds), in that order."""
    ends: list[float] = []

    def follow(sock: socket.socket) -> None:
        with suppress(OSError):
            sock.recv(1)
        ends.append(time.monotonic())

    watchers = [threading.Thread(target=follow, args=(each.sock,)) for each in clients]
    for each in watchers:
        each.start()
    for each in watchers:
        each.join(20)
    return sorted(ends)


@pytest.mark.parametrize("count", [1, 10])
def test_forced_closes_are_even(pop: Pop, count: int) -> None:
    pop.backend("sa-1", hard_limit=0)
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="2.5", EDGEPROXY_DRAIN_SPREAD_SECS="2")
    clients = [pop.holder()[0] for _ in range(count)]
    began = time.monotonic()
    proxy.send(signal.SIGTERM)
    ends = ends_of(clients)
    assert len(ends) == count
    for number, end in enumerate(ends, start=1):
        assert end - began >= 0.5 + 2 * number / count - 0.05, (number, end - began)
    proxy.last_words()


def test_forced_closes_are_spread(pop: Pop) -> None:
    pop.backend("sa-1", hard_limit=0)
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="2", EDGEPROXY_DRAIN_SPREAD_SECS="1.5")
    clients = [pop.holder()[0] for _ in range(30)]
    began = time.monotonic()
    proxy.send(signal.SIGTERM)
    ends = [each - began for each in ends_of(clients)]
    proxy.wait_for_exit()
    assert len(ends) == 30
    assert ends[0] >= 0.4
    gaps = [later - earlier for earlier, later in pairwise(ends)]
    assert max(gaps) < 0.75
    assert ends[-1] - ends[0] >= 0.7


# -- systemd ------------------------------------------------------------------------------


def test_systemd_is_told_when_it_is_ready_alive_and_stopping(pop: Pop, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        os.environ.update(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="400000")
        try:
            proxy = pop.serve()
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        assert manager.recv(1000).startswith(b"READY=1\nSTATUS=serving on 127.0.0.1:")
        assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        proxy.send(signal.SIGTERM)
        while (said := manager.recv(1000)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1"
        proxy.wait_for_exit()


def test_systemd_hears_from_the_successor_of_the_process_it_watched(
    pop: Pop, tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        os.environ.update(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="400000")
        try:
            # As systemd does it: the signs of life are wanted of the process that it started.
            proxy = pop.serve_with(("sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *SERVE))
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        with upgraded(proxy) as successor:
            wait_until(lambda: not proxy.is_running(), "the predecessor to end")
            while (said := manager.recv(1000)) != b"MAINPID=%d" % successor:
                assert said.startswith((b"READY=1", b"WATCHDOG=1"))
            while select.select([manager], [], [], 0)[0]:
                manager.recv(1000)  # perhaps the last word of the one that has ended
            assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3


def test_a_socket_that_systemd_gives_is_served(pop: Pop) -> None:
    pop.backend("sa-1")
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        # As systemd does it: the socket is descriptor 3, and LISTEN_PID is the process itself.
        starter = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.executable, [sys.executable, '-m', 'edgeproxy', 'serve'])"
        )
        os.set_inheritable(given.fileno(), True)
        script = pop.folder / "starter.py"
        script.write_text(starter)
        real = subprocess.Popen

        class WithSocket(subprocess.Popen):  # type: ignore[type-arg]
            def __init__(self, *args: object, **more: object) -> None:
                super().__init__(*args, **more, pass_fds=[given.fileno()])  # type: ignore[call-overload]

        subprocess.Popen = WithSocket  # type: ignore[misc]
        try:
            proxy = pop.serve_with((sys.executable, str(script), str(given.fileno())))
        finally:
            subprocess.Popen = real  # type: ignore[misc]
    assert proxy.address == ("127.0.0.1", port)
    assert pop.reached() == "sa-1"


# -- successors ---------------------------------------------------------------------------


class Storm:
    """Clients that connect one after another without pause, and what became of them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.served = 0
        self.faults: list[str] = []
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                client = connect(self._address)
                try:
                    if not greeting(client):
                        self.faults.append("refused")
                    client.send(b"echo this")
                    client.end()
                    if client.rest() != (b"echo this", False):
                        self.faults.append("bytes are missing")
                finally:
                    client.close()
            except OSError as error:
                self.faults.append(repr(error))
            else:
                self.served += 1


def _processes(pop: Pop) -> list[int]:
    """Return the proxies of this POP that are running."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            words = (each / "cmdline").read_bytes().split(b"\0")
            if b"edgeproxy" in words and (each / "cwd").resolve() == pop.folder.resolve():
                found.append(int(each.name))
        except OSError:
            continue
    return found


@contextmanager
def upgraded(proxy: RunningProxy) -> Iterator[int]:
    """Upgrade a proxy; give the process id of its successor. In the end both have ended."""
    proxy.send(signal.SIGUSR2)
    successor = int(proxy.wait_for("upgraded")["successor"])
    try:
        yield successor
    finally:
        os.kill(successor, signal.SIGTERM)
    assert proxy.wait_for_exit() == 0


def test_nobody_is_lost_across_four_upgrades(pop: Pop) -> None:
    pop.backend("sa-1", hard_limit=0)
    path = str(pop.folder / "control")
    proxy = pop.serve(EDGEPROXY_CONTROL_SOCKET=path, EDGEPROXY_BINDING_TTL_SECS="0")
    holder, _ = pop.holder()
    try:
        with Storm(proxy.address) as storm:
            for _ in range(4):
                before = storm.served
                told = run_edgeproxy("upgrade", folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=path)
                assert told.returncode == 0, told.stderr
                wait_until(lambda b=before: storm.served > b + 20, "clients to be served")  # type: ignore[misc]
        assert storm.faults == []
        assert storm.served > 80
        holder.send(b"the first one goes on")
        holder.end()
        assert holder.rest() == (b"the first one goes on", False)
        assert proxy.wait_for_exit(is_replaced=True) == 0
        wait_until(lambda: len(_processes(pop)) == 1, "the predecessors to end")
    finally:
        for pid in _processes(pop):
            if pid != proxy.pid:
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not _processes(pop) or _processes(pop) == [proxy.pid], "the last to end")


def test_a_successor_that_does_not_start_changes_nothing(pop: Pop) -> None:
    pop.backend("sa-1")
    path = pop.folder / "edgeproxy.toml"
    path.write_text("")
    proxy = pop.serve(EDGEPROXY_CONFIG=str(path))
    path.write_text("[proxy]\nregion = 7.5\n")
    proxy.send(signal.SIGUSR2)
    reason = proxy.wait_for("upgrade_failed")["reason"]
    assert "ended before it was ready, with exit code 2" in reason
    assert pop.reached() == "sa-1"
    proxy.foreign.clear()


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_successor_does_not_begin_with_an_empty_table(pop: Pop, is_gone: bool) -> None:
    pop.backend("sa-1")
    proxy = pop.serve()
    if is_gone:
        pop.database.unlink()
    else:
        execute(pop.database, "DROP TABLE backends")
    proxy.send(signal.SIGUSR2)
    assert "with exit code 1" in proxy.wait_for("upgrade_failed")["reason"]
    assert pop.reached() == "sa-1"
    assert pop.database.exists() is not is_gone
    proxy.foreign.clear()


def test_who_cannot_be_upgraded_now_says_so(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve()
    client, _ = pop.holder()
    proxy.send(signal.SIGUSR2)
    proxy.wait_for("upgrading")
    with upgraded(proxy):
        assert "already" in proxy.wait_for("upgrade_failed")["reason"]
        proxy.send(signal.SIGUSR2)
        assert "being stopped already" in proxy.wait_for("upgrade_failed", 2)["reason"]
        client.close()


def test_the_first_sigterm_after_an_upgrade_asks_for_what_is_done_already(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="600")
    client, _ = pop.holder()
    with upgraded(proxy):
        proxy.wait_for("draining")
        proxy.send(signal.SIGTERM)
        proxy.wait_for("signal", times="1")
        PAUSE.wait(0.3)
        client.send(b"still here")
        assert client.receive(10) == b"still here"
        proxy.send(signal.SIGTERM)
        assert proxy.wait_for("stopped")["cut"] == "1"


def test_a_successor_goes_on_draining(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    path = str(pop.folder / "control")
    proxy = pop.serve(EDGEPROXY_CONTROL_SOCKET=path)
    run_edgeproxy("drain", "sa-1", folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=path)
    with upgraded(proxy):
        wait_until(lambda: not proxy.is_running(), "the predecessor to end")
        assert pop.reached() == "us-1"
        run_edgeproxy("undrain", "sa-1", folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=path)
        assert pop.reached() == "sa-1"
