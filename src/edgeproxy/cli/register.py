"""`edgeproxy register`: keep a backend registered, alone or around the command that runs it."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy import regular_file
from edgeproxy.control import children
from edgeproxy.errors import EdgeProxyError, UsageError

if TYPE_CHECKING:
    from edgeproxy.library.registration import Registration

TOKEN = "EDGEPROXY_API_TOKEN"  # noqa: S105 — a name
TOKEN_FILE = "EDGEPROXY_API_TOKEN_FILE"  # noqa: S105
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LOOK_SECS = 0.1


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "register",
        help="register a backend with a POP, and keep it registered",
        usage="edgeproxy register --api URL --id ID --app APP --region REGION --ip IP --port PORT "
        "[options] [-- COMMAND ...]",
        description="Register a backend, send heartbeats, and deregister it on SIGTERM, SIGINT or "
        "SIGQUIT. With a command: start it, register when it accepts connections, pass signals "
        "on, deregister before it ends, and exit with its exit code. The token of the API comes "
        f"from {TOKEN} or {TOKEN_FILE}.",
    )
    parser.add_argument("--api", required=True, metavar="URL", help="such as http://10.50.0.1:8081")
    for name, text in (
        ("id", "unique name, for instance backend-eu-1"),
        ("app", "the application that it serves"),
        ("region", "sa, us, eu, ap or a short code of your own"),
        ("ip", "its address, as the POP reaches it"),
    ):
        parser.add_argument(f"--{name}", required=True, help=text)
    parser.add_argument("--port", required=True, type=int, help="1 to 65535")
    parser.add_argument("--country", help="two letters, such as DE")
    parser.add_argument("--weight", type=int, metavar="N", help="(default: 2)")
    parser.add_argument("--soft-limit", type=int, metavar="N", help="(default: 100)")
    parser.add_argument(
        "--hard-limit", type=int, metavar="N", help="0 means no limit (default: 150)"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command to run")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Keep the backend registered until a signal arrives or the command ends."""
    command = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    try:
        registration = _registration(arguments)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if command:
        return _Wrapped(registration, command, arguments.ip, arguments.port).run()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    _start(registration)
    signal.sigwait(ENDING)
    registration.stop()
    if not registration.last_fault:
        _say(f"{arguments.id} is deregistered")
    return 0


class _Wrapped:
    """A command that is registered while it runs."""

    def __init__(
        self, registration: Registration, command: Sequence[str], ip: str, port: int
    ) -> None:
        self._registration = registration
        self._command = command
        self._address = (ip, port)
        self._asked: list[int] = []  # ending signals that have arrived
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run the command; return its exit code."""
        for number in ENDING:
            signal.signal(number, lambda number, _frame: self._asked.append(number))
        for number in PASSED_ON:
            signal.signal(number, self._pass_on)
        # A terminal sends its signals to the whole process group. The command has its own group,
        # so that it gets the signal from here, after it has been deregistered.
        # The token is ours: the command has no use for it, and may show its environment.
        environ = {name: text for name, text in os.environ.items() if name != TOKEN}
        try:
            child = subprocess.Popen(self._command, env=environ, process_group=0)  # noqa: S603
        except OSError as error:
            raise EdgeProxyError(f"{self._command[0]}: {error.strerror}") from None
        self._child = child
        children.RUNNING[child.pid] = child.poll
        try:
            if self._await_child(child):
                _start(self._registration)
            while child.poll() is None and not self._asked:
                _pause(child)
        except EdgeProxyError:
            child.terminate()
            self._await_end(child)
            raise
        self._registration.stop()
        code = self._await_end(child)
        return code if code >= 0 else 128 - code

    def _await_end(self, child: subprocess.Popen[bytes]) -> int:
        """Wait until the command ends, passing on ending signals; return its exit code."""
        while (code := child.poll()) is None:
            while self._asked:
                child.send_signal(self._asked.pop(0))
            _pause(child)
        return code

    def _pass_on(self, number: int, _frame: object) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def _await_child(self, child: subprocess.Popen[bytes]) -> bool:
        """Wait until the command accepts connections; return whether it does."""
        while child.poll() is None and not self._asked:
            try:
                socket.create_connection(self._address, timeout=1).close()
            except OSError:
                _pause(child)
            else:
                return True
        return False


def _pause(child: subprocess.Popen[bytes]) -> None:
    if os.getpid() == 1:
        children.reap()
    try:
        child.wait(LOOK_SECS)
    except subprocess.TimeoutExpired:
        pass


def _registration(arguments: argparse.Namespace) -> Registration:
    from edgeproxy.library.registration import Registration

    more = {
        name: getattr(arguments, name)
        for name in ("country", "weight", "soft_limit", "hard_limit")
        if getattr(arguments, name) is not None
    }

    def changed(fault: str) -> None:
        _say(
            f"{_without_user(arguments.api)}: {fault}" if fault else f"{arguments.id} is registered"
        )

    return Registration(
        arguments.api,
        id=arguments.id,
        app=arguments.app,
        region=arguments.region,
        ip=arguments.ip,
        port=arguments.port,
        token=_token(),
        changed=changed,
        **more,
    )


def _without_user(url: str) -> str:
    """Return a URL without the name and password that may stand in it."""
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.rpartition("@")[2]


def _start(registration: Registration) -> None:
    from edgeproxy.library.registration import RegistrationRefusedError

    try:
        registration.start()
    except RegistrationRefusedError:  # why has been said
        raise EdgeProxyError("the API refuses this backend, so it is not registered") from None
    if registration.is_registered:
        _say("registered")


def _token() -> str:
    path = os.environ.get(TOKEN_FILE)
    if not path:
        return os.environ.get(TOKEN, "")
    try:
        return regular_file.read_text(Path(path), regular_file.MAX_TOKEN_BYTES).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{TOKEN_FILE}={path!r} cannot be read: {reason}") from None


def _say(text: str) -> None:
    print(f"edgeproxy: {text}", file=sys.stderr, flush=True)
