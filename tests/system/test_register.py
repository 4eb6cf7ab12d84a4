"""`edgeproxy register` keeps a backend registered, whatever happens to the POP or the command."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy import Registration
from edgeproxy.library.registration import RegistrationRefusedError
from tests.system.api import Api, running, serve
from tests.system.pop import Pop
from tests.system.proxy import EDGEPROXY, clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.system

SERVER = """
import signal, socket, sys, threading
listening = socket.create_server((sys.argv[1], int(sys.argv[2])))
def end(*_):
    print("ending", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
signal.signal(signal.SIGHUP, lambda *_: sys.exit(3))
while True:
    client, _ = listening.accept()
    client.sendall(b"wrapped\\n")
    client.close()
"""


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def words(api: Api, backend_id: str, ip: str, port: int, *more: str) -> list[str]:
    return [
        *(*EDGEPROXY, "register", "--api", api.url, "--id", backend_id, "--app", "myapp"),
        *("--region", "sa", "--ip", ip, "--port", str(port), *more),
    ]


def begin(command: list[str], **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=clean_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def listed(api: Api, backend_id: str) -> bool:
    return backend_id in api.listed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_registers_shows_life_and_leaves(pop: Pop, number: signal.Signals) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="0.6", EDGEPROXY_API_TOKEN="t0ken")
    seen = Api(pop, Authorization="Bearer t0ken")
    backend = running(pop, "a")
    command = words(api, "a/b", backend.host, backend.port, "--weight", "9", "--country", "AR")
    process = begin(command, EDGEPROXY_API_TOKEN="t0ken")
    try:
        wait_until(lambda: listed(seen, "a/b"), "it is registered")
        first = seen.listed()["a/b"]
        assert (first["weight"], first["country"], first["hard_limit"]) == (9, "AR", 150)
        ages = [seen.listed()["a/b"]["lease"]["age_secs"] for _ in range(300)]
        assert max(ages) < 0.4
        assert pop.reached() == "a"
        code, _, err = end(process, number)
    finally:
        process.kill()
    assert (code, "t0ken" in err) == (0, False)
    assert not listed(seen, "a/b")
    assert not pop.proxy.seen("lease_expired")


def test_it_waits_for_an_api_and_comes_back_with_it(pop: Pop) -> None:
    port = free_port()
    backend = running(pop, "a")
    settings = {
        "EDGEPROXY_API_LISTEN_ADDR": f"127.0.0.1:{port}",
        "EDGEPROXY_HEARTBEAT_TTL_SECS": "1",
    }
    faults: list[str] = []
    registration = Registration(
        f"http://127.0.0.1:{port}",
        id="a",
        app="myapp",
        region="sa",
        ip=backend.host,
        port=backend.port,
        changed=faults.append,
    )
    with registration:
        assert "does not answer" in faults[0]
        api = serve(pop, **settings)
        wait_until(lambda: listed(api, "a"), "it is registered")
        pop.proxy.stop()
        pop.database.unlink()
        wait_until(lambda: len(faults) > 2, "it is missed")
        api = serve(pop, **settings)  # which knows nobody
        wait_until(lambda: listed(api, "a"), "it is registered again")
        assert pop.reached() == "a"
    assert not listed(api, "a")
    assert faults[1] == ""


def test_what_is_refused_is_an_error_at_once(pop: Pop) -> None:
    api = serve(pop)
    process = begin(words(api, "a", "10.0.0.1", 70_000))
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "port" in err
    wrong = Registration(api.url, id="a", app="", region="sa", ip="10.0.0.1", port=1)
    with pytest.raises(RegistrationRefusedError, match="app"):
        wrong.start()
    with pytest.raises(ValueError, match="api is like"):
        Registration("10.0.0.1:8081", id="a", app="a", region="sa", ip="10.0.0.1", port=1)


def test_a_command_is_registered_while_it_runs(pop: Pop, tmp_path: Path) -> None:
    api = serve(pop)
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    port = free_port()
    command = words(
        api, "w", "127.0.0.1", port, "--", sys.executable, str(server), "127.0.0.1", str(port)
    )
    process = begin(command)
    try:
        wait_until(lambda: listed(api, "w"), "it is registered")
        assert pop.reached() == "wrapped"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "heard\n"
        code, out, err = end(process, signal.SIGTERM)
    finally:
        process.kill()
    assert (code, out) == (7, "ending\n"), err
    assert not listed(api, "w")


def test_a_command_that_ends_by_itself_leaves_and_gives_its_exit_code(
    pop: Pop, tmp_path: Path
) -> None:
    api = serve(pop)
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    port = free_port()
    command = words(
        api, "w", "127.0.0.1", port, "--", sys.executable, str(server), "127.0.0.1", str(port)
    )
    process = begin(command)
    try:
        wait_until(lambda: listed(api, "w"), "it is registered")
        code, _, _ = end(process, signal.SIGHUP)
    finally:
        process.kill()
    assert code == 3
    assert not listed(api, "w")
    for words_of_command, expected in ((["sh", "-c", "exit 5"], 5), (["/nowhere"], 1)):
        process = begin(words(api, "w", "127.0.0.1", port, "--", *words_of_command))
        process.communicate(timeout=20)
        assert process.returncode == expected
