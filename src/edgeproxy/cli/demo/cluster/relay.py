"""The network between the POPs of the demo: it carries their datagrams, or cuts a POP off.

Each POP has an address of its own, where only this relay listens, and sits behind it with the same
port on 127.0.0.1. What a POP sends to the address of another goes on from the sender's address, so
each sees the others where they say they are. Needs no privilege. Who sent is known by the port;
what strangers send is dropped.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import NamedTuple

from edgeproxy.cli.demo.environment import LOOPBACK

MAX_DATAGRAM_BYTES = 65536
_MOST_TRIES = 100


class _Door(NamedTuple):
    pop: str
    udp: socket.socket


class Relay:
    """Carries datagrams on a thread of its own, from `start` to `close`."""

    def __init__(self) -> None:
        self._doors: dict[int, _Door] = {}
        self._cut: frozenset[str] = frozenset()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def open(self, pop: str, host: str) -> int:
        """Open one more port of a POP at its address `host`, before `start`.

        Return the port, which the POP is to bind on 127.0.0.1, too.
        """
        for _ in range(_MOST_TRIES):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((host, 0))
            port = udp.getsockname()[1]
            if port not in self._doors and _is_free(port):
                udp.setblocking(False)
                self._doors[port] = _Door(pop, udp)
                return int(port)
            udp.close()
        raise OSError(f"no UDP port is free on both {host} and {LOOPBACK}")

    def start(self) -> None:
        """Carry from now on."""
        self._thread.start()

    def cut(self, pops: Iterable[str]) -> None:
        """Drop whatever these POPs send or are sent, and carry all else."""
        self._cut = frozenset(pops)

    def close(self) -> None:
        """End the thread and close all sockets."""
        if self._thread.ident is not None:
            self._wake.send(b"x")
            self._thread.join()
        for each in (self._wake, self._woken, *(door.udp for door in self._doors.values())):
            each.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for port, door in self._doors.items():
                selector.register(door.udp, selectors.EVENT_READ, port)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    self._carry(key.data)

    def _carry(self, port: int) -> None:
        target = self._doors[port]
        with suppress(OSError):  # as on any network, a datagram that cannot be carried is lost
            datagram, (host, sender_port) = target.udp.recvfrom(MAX_DATAGRAM_BYTES)
            sender = self._doors.get(sender_port) if host == LOOPBACK else None
            if sender is not None and not self._cut & {sender.pop, target.pop}:
                sender.udp.sendto(datagram, (LOOPBACK, port))


def _is_free(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
