"""A local file that keeps the last good table of a server that may be down at the next start.

The first line is a header, then one line of JSON for each row. A new version is written to a
temporary file and renamed. Reading checks the rows like rows of a database.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

from edgeproxy import regular_file
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.errors import StoreError
from edgeproxy.store.snapshot import Snapshot, snapshot_of

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "edgeproxy snapshot 1"
_NAMES = (*COLUMNS, COUNTRY)


def save(path: Path, snapshot: Snapshot, rest: Pause = no_pause) -> None:
    """Write this table. If it raises StoreError, the file is unchanged."""
    new = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    first = {"format": FORMAT, "backends": len(snapshot.backends), "routes": snapshot.routes}
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(first) + "\n")
            for backend in paced(snapshot.backends, rest):
                values = [getattr(backend, name) for name in _NAMES]
                file.write(json.dumps([int(v) if type(v) is bool else v for v in values]) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def load(path: Path, rest: Pause = no_pause) -> Snapshot:
    """Return the table in the file. Raises StoreError."""
    rows = []
    try:
        lines = BytesIO(regular_file.read(path, regular_file.MAX_SNAPSHOT_BYTES))
        first = json.loads(lines.readline())
        if first["format"] != FORMAT:
            raise ValueError("it is of another format")
        rows = [dict(zip(_NAMES, json.loads(line), strict=True)) for line in paced(lines, rest)]
        if len(rows) != first["backends"]:
            raise ValueError("it is incomplete")
        return snapshot_of(rows, list(first["routes"].items()), rest)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is no snapshot of a routing database: {error}") from None
