"""Who this POP is among others: its name, and which of its lives this is.

Both are in a small file beside the state of the engine. The name stays what it was at the first
start, also if the host is renamed, unless the settings say another. The number of a life is larger
than that of any life before, also if the clock was set back: it is what others compare.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from socket import gethostname

from edgeproxy import regular_file
from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.errors import EdgeProxyError, UsageError

_NODE_ID = re.compile("[!-~]{1,64}")


class IdentityError(EdgeProxyError):
    """The file with the identity of this POP cannot be used."""


def path_beside(db_path: Path) -> Path:
    """Return where the identity is kept."""
    return db_path.with_name(f"{db_path.name}-identity")


def node_id_of(db_path: Path, configured: str) -> str:
    """Return the name of this POP, and keep it. Raises EdgeProxyError."""
    known, life = _read(path_beside(db_path))
    wanted = configured or known or gethostname()
    check_node_id(wanted)
    if wanted != known:
        _write(path_beside(db_path), wanted, life)
    return wanted


def check_node_id(name: str) -> None:
    """Raise UsageError if a POP cannot have this name."""
    if not _NODE_ID.fullmatch(name):
        raise UsageError(
            f"EDGEPROXY_REPLICATION_NODE_ID={name!r}: allowed are 1 to 64 printable ASCII "
            "characters without spaces, unlike the name of any other POP"
        )


def home_of(settings: ReplicationSettings, configured: str | None) -> str | None:
    """Return the name under which backends register here; None: no other POP has these rows."""
    if configured or not settings.enabled:
        return configured
    return node_id_of(settings.db_path, settings.node_id)


def begin_life(db_path: Path, configured: str, now_ms: int) -> tuple[str, int]:
    """Return the name of this POP and the number of the life that begins now.

    Two copies of one disk begin lives of different numbers.
    """
    from edgeproxy.core.cluster.swim.records import next_instance

    name = node_id_of(db_path, configured)
    _, last = _read(path_beside(db_path))
    life = next_instance(last, now_ms, secrets.randbits(16))
    _write(path_beside(db_path), name, life)
    return name, life


def _read(path: Path) -> tuple[str, int]:
    try:
        content = json.loads(regular_file.read_text(path, regular_file.MAX_TOKEN_BYTES))
        name, life = content["node_id"], content["life"]
        if isinstance(name, str) and type(life) is int:
            return name, life
    except FileNotFoundError:
        return "", 0
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        pass
    raise IdentityError(
        f"{path} is damaged: delete it; the POP then takes the name of "
        "EDGEPROXY_REPLICATION_NODE_ID or of its host"
    )


def _write(path: Path, name: str, life: int) -> None:
    """Replace the file: it is there whole, or as it was, also after a power cut."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            json.dump({"node_id": name, "life": life}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from None
