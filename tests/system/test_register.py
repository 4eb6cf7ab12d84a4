"""`edgeproxy register` keeps a backend registered, whatever happens to the POP or the command."""

from __future__ import annotations

import http.server
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import pytest

from edgeproxy import Registration
from edgeproxy.library.registration import TTL_SECS, RegistrationRefusedError
from tests.ports import free_port
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
signal.signal(signal.SIGQUIT, end)
signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
signal.signal(signal.SIGHUP, lambda *_: sys.exit(3))
while True:
    client, _ = listening.accept()
    client.sendall(b"wrapped\\n")
    client.close()
"""

STUBBORN = SERVER.replace(
    "signal.signal(signal.SIGTERM, end)",
    """
signal.signal(signal.SIGTERM, lambda *_: print("asked to end", flush=True))
""",
)


class Impostor:
    """Answers everything with this, and 200."""

    def __init__(self, content: bytes) -> None:
        self.asked = 0
        impostor = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                self.do_DELETE()

            def do_DELETE(self) -> None:
                impostor.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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
    reason, end = err.splitlines()
    assert reason.startswith(f"edgeproxy: {api.url}: ")
    assert "port" in reason
    assert end == "edgeproxy: the API refuses this backend, so it is not registered"
    wrong = Registration(api.url, id="a", app="", region="sa", ip="10.0.0.1", port=1)
    with pytest.raises(RegistrationRefusedError, match="app"):
        wrong.start()
    with pytest.raises(ValueError, match="api must be a URL such as"):
        Registration("10.0.0.1:8081", id="a", app="a", region="sa", ip="10.0.0.1", port=1)
    with pytest.raises(ValueError, match="api must be a URL such as"):
        Registration("http://10.0.0.1:99999", id="a", app="a", region="sa", ip="::1", port=1)


def test_a_command_that_is_refused_and_does_not_end_is_still_sent_signals(
    pop: Pop, tmp_path: Path
) -> None:
    api = serve(pop)
    server = tmp_path / "server.py"
    server.write_text(STUBBORN)
    address = ("127.0.0.1", str(free_port()))
    more = ("--weight", "5000", "--", sys.executable, str(server), *address)
    process = begin(words(api, "w", address[0], int(address[1]), *more))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked to end\n"
        code, _, err = end(process, signal.SIGINT)
    finally:
        process.kill()
    assert (code, "weight" in err) == (1, True)


@pytest.mark.parametrize("token", ["two\nlines", "with space", "sécret", "\x00"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="token") as refused:
        Registration(
            "http://127.0.0.1:1", id="a", app="a", region="sa", ip="::1", port=1, token=token
        )
    assert token not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"<html>", b"[" * 100_000, b"\xff", b"[]"),
        *(b'{"heartbeat_secs": %s}' % each for each in (b"null", b"0", b"-1", b"NaN", b"1e400")),
    ],
)
def test_whatever_answers_ends_neither_the_heartbeats_nor_the_program(content: bytes) -> None:
    with Impostor(content) as impostor:
        registration = Registration(impostor.url, id="a", app="a", region="sa", ip="::1", port=1)
        with registration:
            assert registration._beat_secs == TTL_SECS / 3
            assert registration._thread is not None
            assert registration._thread.is_alive()
    assert not registration.is_registered


def test_an_api_that_hangs_does_not_hold_up_the_end(pop: Pop) -> None:
    api = serve(pop)
    backend = running(pop, "a")
    process = begin(words(api, "a", backend.host, backend.port))
    try:
        wait_until(lambda: listed(api, "a"), "it is registered")
        pop.proxy.send(signal.SIGSTOP)
        code, _, err = end(process, signal.SIGTERM)
    finally:
        pop.proxy.send(signal.SIGCONT)
        process.kill()
    assert (code, "was not deregistered" in err, "is deregistered" in err) == (0, True, False)


def begin_wrapped(api: Api, folder: Path) -> subprocess.Popen[str]:
    """Register a command that serves, as `w`."""
    server = folder / "server.py"
    server.write_text(SERVER)
    port = free_port()
    serving = (sys.executable, str(server), "127.0.0.1", str(port))
    return begin(words(api, "w", "127.0.0.1", port, "--", *serving))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_command_is_registered_while_it_runs(
    pop: Pop, tmp_path: Path, number: signal.Signals
) -> None:
    api = serve(pop)
    process = begin_wrapped(api, tmp_path)
    try:
        wait_until(lambda: listed(api, "w"), "it is registered")
        assert pop.reached() == "wrapped"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "heard\n"
        code, out, err = end(process, number)
    finally:
        process.kill()
    assert (code, out) == (7, "ending\n"), err
    assert not listed(api, "w")


def test_a_command_that_ends_by_itself_leaves_and_gives_its_exit_code(
    pop: Pop, tmp_path: Path
) -> None:
    api = serve(pop)
    process = begin_wrapped(api, tmp_path)
    try:
        wait_until(lambda: listed(api, "w"), "it is registered")
        code, _, _ = end(process, signal.SIGHUP)
    finally:
        process.kill()
    assert code == 3
    assert not listed(api, "w")
    for words_of_command, expected in ((["sh", "-c", "exit 5"], 5), (["/nowhere"], 1)):
        process = begin(words(api, "w", "127.0.0.1", free_port(), "--", *words_of_command))
        process.communicate(timeout=20)
        assert process.returncode == expected
