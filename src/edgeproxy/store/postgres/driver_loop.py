"""The event loop of the PostgreSQL driver: its name look-ups never delay the end of the process."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any

from edgeproxy.control.awake_loop import AwakeLoop

_Key = tuple[Any, ...]


class DriverLoop(AwakeLoop):
    """A loop that resolves names on daemon threads and ignores network errors in the background.

    Python waits for the threads of a pool when the process ends, and a name server that does not
    answer would delay that by many seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[_Key, asyncio.Future[Any]] = {}  # those under way, one per name
        self.set_exception_handler(_failed)

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 — its name in asyncio
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Return the addresses of a name. Raises OSError."""
        key = (host, port, family, type, proto, flags)
        if key not in self._lookups:
            self._lookups[key] = self.create_future()
            threading.Thread(target=self._look_up, args=(key,), name="names", daemon=True).start()
        return await asyncio.shield(self._lookups[key])

    def _look_up(self, key: _Key) -> None:
        addresses: Any = None
        fault: OSError | None = None
        try:
            addresses = socket.getaddrinfo(*key)
        except OSError as error:
            fault = error
        except UnicodeError:
            fault = OSError("the host name is not valid")
        with suppress(RuntimeError):  # the loop is closed
            self.call_soon_threadsafe(self._looked_up, key, addresses, fault)

    def _looked_up(self, key: _Key, addresses: Any, fault: OSError | None) -> None:
        future = self._lookups.pop(key)
        if fault is None:
            future.set_result(addresses)
        else:
            future.set_exception(fault)


def _failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report an error of a background task, unless it is a network error.

    The driver closes expired connections in such tasks, also while the server is away.
    """
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)
