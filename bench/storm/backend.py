"""A backend, inside this process, that can go away without losing who has reached it.

It can refuse new connections, answer them not at all, or reset them; open ones go on.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from contextlib import suppress

from bench.storm.protocol import (
    CHUNK,
    CLOSE,
    ECHO,
    GREETING_BYTES,
    PREFACE_BYTES,
    RESET,
    Address,
    exactly,
    reset_on_close,
)

SHUT_SECS = 0.05
"""How long a handshake that has begun may take to end."""
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # the socket module does not name them


class Backend:
    """Greets with its id, then echoes, or leaves first if the client's first byte asks for it.

    Attributes:
        resets: Whether it resets who comes from now on.
        reset_count: How many it has reset so.
    """

    def __init__(self, number: int) -> None:
        self.id = f"node-{number}"
        self.address: Address = (f"127.60.0.{number + 1}", 0)
        self.resets = False
        self.reset_count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, on the port it had before if it had one."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(self.address)
        listening.listen(4096)
        self.address = listening.getsockname()
        self._listening = listening
        self._accepting = asyncio.create_task(self._accept(listening))

    async def stop(self) -> None:
        """Refuse new connections; open ones go on, and so do those who have connected just now.

        To close a listening socket resets whoever is in its queue, so nobody may get there.
        """
        listening, self._listening = self._listening, None
        if listening is None or self._accepting is None:
            return
        _let_nobody_in(listening)
        await asyncio.sleep(SHUT_SECS)
        self._accepting.cancel()
        with suppress(asyncio.CancelledError):
            await self._accepting
        with listening, suppress(BlockingIOError):
            while True:
                self._take(listening.accept()[0])

    def vanish(self) -> None:
        """Answer no new connection at all, as if the way here was cut; open ones go on."""
        assert self._listening is not None
        _let_nobody_in(self._listening)

    def appear(self) -> None:
        """Answer again."""
        assert self._listening is not None
        self._listening.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    async def close(self) -> None:
        """Stop, and end what is open."""
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            self._take((await asyncio.get_running_loop().sock_accept(listening))[0])

    def _take(self, tcp: socket.socket) -> None:
        if self.resets:
            self.reset_count += 1
            reset_on_close(tcp)
            tcp.close()
            return
        tcp.setblocking(False)
        task = asyncio.create_task(self._serve(tcp))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, tcp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with tcp, suppress(OSError, EOFError):
            await loop.sock_sendall(tcp, self.id.ljust(GREETING_BYTES).encode())
            mode = await exactly(tcp, 1)
            if mode != ECHO:
                await loop.sock_sendall(tcp, await exactly(tcp, PREFACE_BYTES))
            if mode == RESET:
                reset_on_close(tcp)
                return
            if mode == CLOSE:
                tcp.shutdown(socket.SHUT_WR)
            while part := await loop.sock_recv(tcp, CHUNK):
                if mode == ECHO:
                    await loop.sock_sendall(tcp, part)


def _let_nobody_in(listening: socket.socket) -> None:
    """Drop the SYNs that arrive at this socket, and nothing else."""
    program = (
        (0x30, 0, 0, 13),  # the flags of the TCP header,
        (0x54, 0, 0, 0x12),  # of which SYN and ACK:
        (0x15, 0, 1, 0x02),  # a SYN alone
        (0x06, 0, 0, 0),  # is dropped,
        (0x06, 0, 0, 0xFFFFFFFF),  # and all else comes in
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    attached = struct.pack("HL", len(program), ctypes.addressof(code))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)
