"""Real clients: from any loopback address, one by hand or a thousand at the same moment."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Iterable
from contextlib import suppress

from tests.conformance.peers import DEADLINE_SECS, Peer


def connect(address: tuple[str, int], source: str = "") -> Peer:
    """Return a client that has connected to `address`, from the address `source` if given."""
    tcp = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    try:
        tcp.settimeout(DEADLINE_SECS)
        if source:
            tcp.bind((source, 0))
        tcp.connect(address)
    except OSError:
        tcp.close()
        raise
    return Peer(tcp)


def greeting(client: Peer) -> str:
    """Return the id of the backend that greets this client, "" if it is closed without a byte."""
    line = b""
    while not line.endswith(b"\n"):
        byte = client.sock.recv(1)
        if not byte:
            assert not line, f"closed in the middle of a greeting: {line!r}"
            return ""
        line += byte
    return line.decode().rstrip("\n")


def reached(address: tuple[str, int], source: str = "") -> str:
    """Connect, return the id of the backend that answers ("" for none) and leave in full.

    When this returns, the proxy has released the slot.
    """
    client = connect(address, source)
    try:
        name = greeting(client)
        if name:
            client.end()
            assert client.rest() == (b"", False)
        return name
    finally:
        client.close()


def wait_until_cut(waiting: list[socket.socket]) -> None:
    """Return when all of these have ended, none of which may hear a byte."""
    with selectors.DefaultSelector() as selector:
        for each in waiting:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(20)
            assert ready, f"{len(selector.get_map())} are still there"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                with suppress(ConnectionResetError):
                    assert key.fileobj.recv(100) == b""
                selector.unregister(key.fileobj)


def rush(address: tuple[str, int], sources: Iterable[str]) -> list[str]:
    """Connect from all these addresses at once; return the id that each one is greeted with.

    It is "" for a close without a byte. Nobody leaves before everybody has an answer.
    """
    return asyncio.run(_rush(address, list(sources)))


async def _rush(address: tuple[str, int], sources: list[str]) -> list[str]:
    unanswered = len(sources)
    everybody_answered = asyncio.Event()

    async def arrive(source: str) -> str:
        nonlocal unanswered
        reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
        line = await reader.readline()
        unanswered -= 1
        if not unanswered:
            everybody_answered.set()
        await everybody_answered.wait()
        writer.close()
        return line.decode().rstrip("\n")

    async with asyncio.timeout(DEADLINE_SECS):
        return await asyncio.gather(*map(arrive, sources))
