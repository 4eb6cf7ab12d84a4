"""A program: thousands of clients and their backends, so that their sockets are not the test's.

    python -m tests.conformance.crowd

Prints the ports of its two backends, the second with small buffers. For a line with the
ports of two listeners that lead to them, a number of clients and how many of these are to be
stuck, it connects them all, exchanges a few bytes with each, and says when nothing moves any
more; then, as soon as it is told to look, how the connections ended.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from collections import Counter

from tests.conformance.peers import DEADLINE_SECS, QUIET_SECS, Backend, Peer, limit_buffers
from tests.conformance.rig import SMALL_BUFFER
from tests.waiting import PAUSE

JUNK = bytes(1 << 16)


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plain, small = Backend(), Backend(buffer=SMALL_BUFFER)
    _say(ports=[plain.address[1], small.address[1]])
    told = json.loads(sys.stdin.readline())
    peers: list[Peer] = []
    for _ in range(told["clients"] - told["stuck"]):
        peers += _pair(told["ports"][0], plain)
    pairs = [_pair(told["ports"][1], small, SMALL_BUFFER) for _ in range(told["stuck"])]
    _block([pair[index % 2] for index, pair in enumerate(pairs)])
    _say(connected=len(peers) // 2 + len(pairs))
    sys.stdin.readline()
    stuck = [peer for pair in pairs for peer in pair]
    _say(plain=Counter(map(_end, peers)), stuck=Counter(map(_end, stuck)))


def _pair(port: int, backend: Backend, buffer: int | None = None) -> tuple[Peer, Peer]:
    """Return a client and its backend side, after a word in both directions."""
    sock = socket.socket()
    if buffer:
        limit_buffers(sock, buffer)
    sock.settimeout(DEADLINE_SECS)
    sock.connect(("127.0.0.1", port))
    client, server = Peer(sock), backend.accept()
    client.send(b"hello")
    assert server.receive(5) == b"hello"
    server.send(b"good day")
    assert client.receive(8) == b"good day"
    return client, server


def _block(writers: list[Peer]) -> None:
    """Write wherever something is taken, until nothing has been for QUIET_SECS."""
    for writer in writers:
        writer.sock.setblocking(False)
    moved_at = time.monotonic()
    while time.monotonic() - moved_at < QUIET_SECS:
        for writer in writers:
            try:
                writer.sock.send(JUNK)
                moved_at = time.monotonic()
            except BlockingIOError:
                continue
        PAUSE.wait(0.001)
    for writer in writers:
        writer.sock.settimeout(DEADLINE_SECS)


def _end(peer: Peer) -> str:
    try:
        return "reset" if peer.rest().reset else "end"
    except TimeoutError:
        return "none"


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
