"""The relay between the hosts of an underlay: what it does to the packets of each direction.

Run as a process of its own, by path and without the packages around it, so that it starts fast:
`tests/underlay.py` starts it and talks to it, a line of JSON for each question and answer. Each
host is a TUN device that the relay reads from and writes to. A packet belongs to the direction
from the host that it was read from to the one whose address it bears; those for anybody else,
such as multicast, go nowhere.

What happens to the packets of a direction depends on the seed and on the packets before it in
this direction, not on any other. Nothing is lost without being counted, except in a device whose
queue the relay has not emptied in time. It ends when whoever started it does.
"""

from __future__ import annotations

import ctypes
import heapq
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

MTU = 1500
BURST = 32
PR_SET_TIMERSLACK = 29
BEFORE_THE_HOSTS = -10


class Link(NamedTuple):
    """What happens to the packets of one direction.

    Attributes:
        delay_ms: How long every packet is under way, at least.
        jitter_ms: By how much more at most; it brings packets out of order.
        loss: Which share of the packets never arrives, from 0 to 1.
        duplicates: Which share of the others arrives twice.
        is_cut: Whether nothing arrives, not even what is under way.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    duplicates: float = 0.0
    is_cut: bool = False


class Traffic(NamedTuple):
    """How much went in one direction; the bytes are those of whole IP packets."""

    packets: int = 0
    bytes: int = 0


class Direction:
    """The way from one host to another."""

    __slots__ = ("delivered", "delivered_bytes", "fd", "link", "rng", "sent", "sent_bytes")

    def __init__(self, fd: int, rng: Random) -> None:
        self.fd = fd
        self.rng = rng
        self.link = Link()
        self.sent = self.sent_bytes = self.delivered = self.delivered_bytes = 0

    def delays_secs(self) -> list[float]:
        """Decide about the next packet: return the delay of each copy that is to arrive."""
        delay_ms, jitter_ms, loss, duplicates, is_cut = self.link
        rng = self.rng
        if is_cut or (loss and rng.random() < loss):
            return []
        copies = 2 if duplicates and rng.random() < duplicates else 1
        return [(delay_ms + jitter_ms * rng.random()) / 1000 for _ in range(copies)]

    def deliver(self, packet: bytes) -> None:
        with suppress(OSError):  # the host has taken its device down
            os.write(self.fd, packet)
            self.delivered += 1
            self.delivered_bytes += len(packet)


class Relay:
    """All directions between these devices, and the packets under way."""

    def __init__(
        self, fds: list[int], addresses: Sequence[Sequence[str]], seed: int, capacity: int
    ) -> None:
        self._fds = fds
        self._capacity = capacity
        self._waiting: list[tuple[float, int, bytes, Direction]] = []
        self._packets = 0
        self._overflowed = 0
        self._directions = {
            (source, to): Direction(fds[to], Random(f"{seed} {source} {to}"))
            for source in range(len(fds))
            for to in range(len(fds))
            if source != to
        }
        self._routes: dict[int, dict[bytes, Direction]] = {fd: {} for fd in fds}
        for (source, to), direction in self._directions.items():
            v4, v6 = addresses[to]
            routes = self._routes[fds[source]]
            routes[socket.inet_pton(socket.AF_INET, v4)] = direction
            routes[socket.inet_pton(socket.AF_INET6, v6)] = direction

    def serve(self, control: socket.socket) -> None:
        """Carry packets and answer questions until nobody can ask any more."""
        questions = control.makefile("r", encoding="utf-8")
        sources = [control.fileno(), *self._fds]
        while True:
            for fd in select.select(sources, [], [], self._deliver_what_is_due())[0]:
                if fd in self._routes:
                    self._receive(fd)
                    continue
                line = questions.readline()
                if not line:
                    return
                control.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\n")

    def _deliver_what_is_due(self) -> float | None:
        """Return in how many seconds the next packet is due; none: there is no packet."""
        waiting = self._waiting
        while waiting:
            in_secs = waiting[0][0] - time.monotonic()
            if in_secs > 0:
                return in_secs
            _, _, packet, direction = heapq.heappop(waiting)
            direction.deliver(packet)
        return None

    def _receive(self, fd: int) -> None:
        routes = self._routes[fd]
        for _ in range(BURST):
            try:
                packet = os.read(fd, MTU)
            except OSError:  # there is no more, or the host has taken its device down
                return
            is_v6 = packet[0] >> 4 == 6
            direction = routes.get(packet[24:40] if is_v6 else packet[16:20])
            if direction is None:
                continue
            direction.sent += 1
            direction.sent_bytes += len(packet)
            for delay_secs in direction.delays_secs():
                self._send(packet, direction, delay_secs)

    def _send(self, packet: bytes, direction: Direction, delay_secs: float) -> None:
        if not delay_secs:
            direction.deliver(packet)
        elif len(self._waiting) < self._capacity:
            self._packets += 1
            due = time.monotonic() + delay_secs
            heapq.heappush(self._waiting, (due, self._packets, packet, direction))
        else:
            self._overflowed += 1

    def _answer(self, question: dict[str, Any]) -> object:
        links = question.get("links", ())
        for source, to, link in links:
            self._directions[source, to].link = Link(*link)
        if links:
            self._waiting = [each for each in self._waiting if not each[3].link.is_cut]
            heapq.heapify(self._waiting)
        return {
            "overflowed": self._overflowed,
            "counts": [
                (*pair, each.sent, each.sent_bytes, each.delivered, each.delivered_bytes)
                for pair, each in self._directions.items()
            ],
        }


def lowest(fd: int) -> int:
    """Return this descriptor with the lowest number that is free: `select` ends at 1,024."""
    low = os.dup(fd)
    os.close(fd)
    return low


def main(control: int, fds: list[int], **rest: Any) -> None:
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, BEFORE_THE_HOSTS)  # their work is not to delay packets
    relay = Relay([lowest(fd) for fd in fds], **rest)
    with suppress(ConnectionError), socket.socket(fileno=lowest(control)) as asker:
        relay.serve(asker)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
