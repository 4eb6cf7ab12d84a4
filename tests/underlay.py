"""Hosts of one's own and the network between them: delays, losses, duplicates and cut links.

Each host is a network namespace with one device; a relay process (`tests/impairment.py`) carries
packets from each to each other as the link of that direction says. No kernel module for
impairments is needed, only root and TUN devices. What is set is in force when the call returns.
"""

from __future__ import annotations

import fcntl
import ipaddress
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from tests import impairment
from tests.impairment import MTU, Link, Traffic
from tests.system.namespaces import Host, need_namespaces

__all__ = ["DEVICE", "DEVICE_PACKETS", "Link", "Traffic", "Underlay", "need_underlay"]

DEVICE = "underlay"
NETWORK, NETWORK_6 = ipaddress.ip_network("10.77.0.0/16"), ipaddress.ip_network("fd77::/64")
CAPACITY_PACKETS = 20_000
DEVICE_PACKETS = 5_000
PATIENCE_SECS = 20.0

TUN = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

Pair = tuple[str, str]


class Underlay:
    """Hosts with addresses from 10.77.0.1 and fd77::1 on, in a `with` block.

    Attributes:
        hosts: The hosts by name, empty outside of the block.
        links: What is in force from each host to each other.
    """

    def __init__(
        self, names: Sequence[str], *, seed: int = 0, capacity: int = CAPACITY_PACKETS
    ) -> None:
        assert len(set(names)) == len(names), f"a name is there twice: {names}"
        self.hosts: dict[str, Host] = {}
        self.links: dict[Pair, Link] = dict.fromkeys(itertools.permutations(names, 2), Link())
        self._names = list(names)
        self._seed = seed
        self._capacity = capacity
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.hosts.clear)
            for name in self._names:
                self.hosts[name] = stack.enter_context(Host(name))
            stack.enter_context(self._relay())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def address(self, name: str) -> str:
        """Return the IPv4 address of a host."""
        return str(NETWORK[1 + self._names.index(name)])

    def address_6(self, name: str) -> str:
        """Return its IPv6 address."""
        return str(NETWORK_6[1 + self._names.index(name)])

    def set(self, one: str, other: str, link: Link) -> None:
        """Let both directions between two hosts be like this."""
        self._put({(one, other): link, (other, one): link})

    def set_one_way(self, source: str, to: str, link: Link) -> None:
        """Let the direction from `source` be like this, and not that from `to`."""
        self._put({(source, to): link})

    def set_all(self, link: Link) -> None:
        """Let every direction be like this."""
        self._put(dict.fromkeys(self.links, link))

    def spread(self, least_ms: float, most_ms: float) -> None:
        """Give each pair of hosts another delay between these, in one direction."""
        pairs = sorted({tuple(sorted(pair)) for pair in self.links})
        step = (most_ms - least_ms) / max(1, len(pairs) - 1)
        for number, (one, other) in enumerate(pairs):
            self.set(one, other, Link(delay_ms=least_ms + number * step))

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut what goes from one group to another, and nothing else.

        A host that is in no group keeps its links to all.
        """
        group_of = {name: number for number, group in enumerate(groups) for name in group}
        assert group_of.keys() <= set(self._names), f"not a host: {set(group_of) - {*self._names}}"
        self._put(
            {
                (one, other): link._replace(
                    is_cut={one, other} <= group_of.keys() and group_of[one] != group_of[other]
                )
                for (one, other), link in self.links.items()
            }
        )

    def heal(self) -> None:
        """Let no link be cut; delays and the like stay as they are."""
        self.partition()

    def counts(self) -> Mapping[Pair, Traffic]:
        """Return what each host has sent to each other, whether or not it has arrived."""
        return {pair: Traffic(*counts[:2]) for pair, counts in self._counts().items()}

    def delivered(self) -> Mapping[Pair, Traffic]:
        """Return what each host has got from each other, duplicates included."""
        return {pair: Traffic(*counts[2:]) for pair, counts in self._counts().items()}

    def overflowed(self) -> int:
        """Return how many packets were lost because too many were under way or came at once."""
        at_devices = sum(host.run(dropped) for host in self.hosts.values())
        under_way: int = self._ask({})["overflowed"]
        return at_devices + under_way

    def _counts(self) -> dict[Pair, list[int]]:
        return {
            (self._names[source], self._names[to]): counts
            for source, to, *counts in self._ask({})["counts"]
        }

    def _put(self, links: dict[Pair, Link]) -> None:
        unknown = links.keys() - self.links.keys()
        assert not unknown, f"no direction between two hosts: {unknown}"
        number = self._names.index
        rows = [(number(source), number(to), link) for (source, to), link in links.items()]
        self._ask({"links": rows})
        self.links.update(links)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        line = ""
        with self._lock, suppress(OSError):
            self._control.sendall(json.dumps(question).encode() + b"\n")
            line = self._answers.readline()
        assert line, "the relay does not answer"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _relay(self) -> ExitStack:
        """Start the relay; what is returned ends it."""
        with ExitStack() as stack, ExitStack() as handed_over:
            fds = [self._device(name, handed_over) for name in self._names]
            self._control, theirs = socket.socketpair()
            handed_over.enter_context(theirs)
            settings = {
                "control": theirs.fileno(),
                "fds": fds,
                "addresses": [(self.address(name), self.address_6(name)) for name in self._names],
                "seed": self._seed,
                "capacity": self._capacity,
            }
            stack.enter_context(self._control)
            self._control.settimeout(PATIENCE_SECS)
            self._answers = stack.enter_context(self._control.makefile("r", encoding="utf-8"))
            relay = subprocess.Popen(
                [sys.executable, "-I", "-S", impairment.__file__, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *fds],
                start_new_session=True,  # Ctrl-C is for the tests, which end it
            )
            self.relay_pid = relay.pid
            stack.callback(self._end, relay)
            handed_over.close()
            self._ask({})
            return stack.pop_all()

    def _end(self, relay: subprocess.Popen[bytes]) -> None:
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            assert relay.wait(PATIENCE_SECS) == 0, "the relay has failed"
        finally:
            relay.kill()
            relay.wait()

    def _device(self, name: str, stack: ExitStack) -> int:
        """Make the device of a host; return the descriptor at its other end."""
        host = self.hosts[name]
        fd = host.run(open_tun)
        stack.callback(os.close, fd)
        host.ip("link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", str(DEVICE_PACKETS))
        host.ip("link", "set", DEVICE, "addrgenmode", "none")  # or it asks for routers
        host.ip("address", "add", f"{self.address(name)}/{NETWORK.prefixlen}", "dev", DEVICE)
        there = f"{self.address_6(name)}/{NETWORK_6.prefixlen}"
        host.ip("address", "add", there, "dev", DEVICE, "nodad")
        host.ip("link", "set", DEVICE, "up")
        return fd


def open_tun() -> int:
    """Make a TUN device in the namespace of this thread; it lasts as long as its descriptor.

    Without a word about offloads, the kernel hands over whole packets of at most the MTU with
    complete checksums.
    """
    fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd


def dropped() -> int:
    """Return how many packets the device in the namespace of this thread had no room for."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    (line,) = [line for line in lines if line.lstrip().startswith(f"{DEVICE}:")]
    return int(line.split(":")[1].split()[11])


def need_underlay() -> None:
    """Skip the test where this user can make no namespace or no TUN device."""
    need_namespaces()
    if not Path(TUN).exists():
        pytest.skip(f"needs {TUN} to make network devices")
    with Host("probe") as probe:
        try:
            os.close(probe.run(open_tun))
        except OSError as error:
            pytest.skip(f"no TUN device can be made here: {error}")
