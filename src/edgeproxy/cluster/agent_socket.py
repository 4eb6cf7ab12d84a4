"""The Unix socket of the agent, beside its state: the proxy and `edgeproxy cluster` ask there.

One request and one answer a connection, each a line of JSON: `{"ask": NAME, …}` gives
`{"answer": …}` or `{"fault": TEXT}`. Only the user of the agent may connect.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeproxy.errors import EdgeProxyError

MAX_REQUEST_BYTES = 64 << 10
ANSWER_SECS = 10.0
MAX_PATH_BYTES = 107

Answer = Callable[[str, Mapping[str, Any]], Awaitable[object]]


class AgentError(EdgeProxyError):
    """The agent cannot be asked, or it refuses."""


def socket_path(db_path: Path) -> Path:
    """Return where the agent with this state listens."""
    return db_path.absolute().with_name(f"{db_path.name}-agent")


async def serve(path: Path, answer: Answer) -> asyncio.Server:
    """Answer on this socket. Raises AgentError."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECS):
                said = await _answered(await reader.readline(), answer)
                writer.write(json.dumps(said).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, OSError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    with suppress(FileNotFoundError):
        path.unlink()  # the lock of the agent says that nobody listens there
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        with _short(path) as name:
            listening.bind(name)
    except OSError as error:
        listening.close()
        raise AgentError(f"{path} cannot be made: {error.strerror or error}") from None
    finally:
        os.umask(mask)
    return await asyncio.start_unix_server(converse, sock=listening, limit=MAX_REQUEST_BYTES)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a name of this path that is short enough for the address of a Unix socket."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield os.fspath(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


async def _answered(line: bytes, answer: Answer) -> Mapping[str, object]:
    try:
        request = json.loads(line)
        name = request.pop("ask")
    except (ValueError, AttributeError, KeyError, TypeError):
        return {"fault": 'allowed is one line of JSON, such as {"ask": "status"}'}
    try:
        return {"answer": await answer(str(name), request)}
    except EdgeProxyError as error:
        return {"fault": str(error)}


def ask(
    db_path: Path, question: str, /, timeout_secs: float = ANSWER_SECS, **arguments: Any
) -> Any:
    """Return what the agent with this state answers. Raises AgentError."""
    path = socket_path(db_path)
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short(path) as name:
            connection.settimeout(timeout_secs)
            connection.connect(name)
            connection.sendall(json.dumps({"ask": question, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                said = json.loads(lines.readline() or b"{}")
    except FileNotFoundError:
        raise AgentError(
            f"no agent of this cluster runs here: there is no {path}; a proxy with "
            "EDGEPROXY_REPLICATION_ENABLED=true starts one"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it does not answer"
        raise AgentError(f"the agent of this cluster cannot be asked at {path}: {reason}") from None
    if "answer" not in said:
        raise AgentError(said.get("fault", "the agent ended before it answered"))
    return said["answer"]
