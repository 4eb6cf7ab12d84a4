"""Asks Corrosion about the cluster, on its admin socket: frames of JSON with their length before.

An answer is a row of frames that ends with success or a fault; lines of its log may be between.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from edgeproxy.cluster.engine import EngineError
from edgeproxy.errors import reason_of

ANSWER_SECS = 5.0
MAX_FRAME_BYTES = 16 << 20

MEMBERS = {"Cluster": "Members"}
MEMBERSHIP = {"Cluster": "MembershipStates"}
REJOIN = {"Cluster": "Rejoin"}


def set_id(cluster_id: int) -> dict[str, object]:
    """Return the command that sets the number of the cluster."""
    return {"Cluster": {"SetId": cluster_id}}


async def ask(path: Path, command: object, answer_secs: float = ANSWER_SECS) -> list[Any]:
    """Return what Corrosion answers to a command. Raises EngineError."""
    try:
        async with asyncio.timeout(answer_secs):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                body = json.dumps(command).encode()
                writer.write(len(body).to_bytes(4) + body)
                await writer.drain()
                return await _answer(reader)
            finally:
                writer.close()
    except (TimeoutError, asyncio.IncompleteReadError):
        raise EngineError("Corrosion does not answer on its admin socket") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EngineError(f"Corrosion cannot be asked at {path}: {reason_of(error)}") from None


async def _answer(reader: asyncio.StreamReader) -> list[Any]:
    found: list[Any] = []
    while True:
        length = int.from_bytes(await reader.readexactly(4))
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        frame = json.loads(await reader.readexactly(length))
        if frame == "Success":
            return found
        if "Json" in frame:
            found.append(frame["Json"])
        elif "Error" in frame:
            raise EngineError(f"Corrosion refuses: {frame['Error']['msg']}")
