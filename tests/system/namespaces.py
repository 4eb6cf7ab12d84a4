"""Network namespaces of the test's own: a small world of hosts and cables that can be cut."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar

import pytest

CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/run/netns")

T = TypeVar("T")


class Host:
    """A namespace with a loopback device, gone when it is closed.

    Attributes:
        name: As `ip netns` knows it.
    """

    _numbers = itertools.count()

    def __init__(self, label: str) -> None:
        self.name = f"edgeproxy-{label}-{os.getpid()}-{next(self._numbers)}"
        ip("netns", "add", self.name)
        try:
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def ip(self, *words: str) -> None:
        """Run an `ip` command inside."""
        ip("-n", self.name, *words)

    def command(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the command that runs this command inside, as the same process."""
        return ("ip", "netns", "exec", self.name, *words)

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` inside; the sockets that it makes stay inside for good."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter_and_call() -> None:
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                with (NAMESPACES / self.name).open() as namespace:
                    if libc.setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        thread = threading.Thread(target=enter_and_call)  # only this thread enters
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


def ip(*words: str) -> None:
    """Run an `ip` command, which must succeed."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def joined_hosts(stack: ExitStack, here: str, there: str) -> tuple[Host, Host]:
    """Return two hosts with these addresses and a cable between them, named `cable` on both."""
    near, far = stack.enter_context(Host("near")), stack.enter_context(Host("far"))
    near.ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far.name)
    for host, address in ((near, here), (far, there)):
        host.ip("address", "add", f"{address}/24", "dev", "cable")
        host.ip("link", "set", "cable", "up")
    return near, far


def need_namespaces() -> None:
    """Skip the test where this user cannot make a namespace; clear away what a killed run left."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the `ip` command to make network namespaces")
    try:
        for left in NAMESPACES.glob("edgeproxy-*-*-*"):
            if not Path("/proc", left.name.split("-")[-2]).exists():
                # Another worker may clear it away at the same moment.
                subprocess.run(["ip", "netns", "del", left.name], capture_output=True, check=False)
        with Host("probe") as probe:
            probe.run(socket.socket).close()
    except (AssertionError, OSError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
