"""Follows a TOML file and says what in it has changed."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from edgeproxy.control.file_watch import changes


class ConfigChange(NamedTuple):
    """What a file says now.

    Attributes:
        values: All of it, by `section.key`.
        changed: What is other than before, with the new value; None for what is gone.
        fault: Why it cannot be read now, or ""; `values` are the last good ones then. A change
            without it after one with it says that the fault is over, even if nothing is other
            than before.
    """

    values: dict[str, Any]
    changed: dict[str, Any]
    fault: str = ""


class ConfigWatcher:
    """Follows one file. Iterate over `changes()`.

    Args:
        path: The TOML file.
        interval_secs: Seconds between polls of the file, besides change notifications.
    """

    def __init__(self, path: str | Path, interval_secs: float = 5.0) -> None:
        if not interval_secs > 0:
            raise ValueError("interval_secs is more than 0")
        self._path = Path(path)
        self._interval_secs = interval_secs
        self._values: dict[str, Any] = {}

    async def changes(self) -> AsyncIterator[ConfigChange]:
        """Yield what the file says, now and each time that it says something else."""
        was_bad = False
        async for _ in changes(self._path, self._interval_secs):
            fault = ""
            try:
                values = _flat(tomllib.loads(self._path.read_text(encoding="utf-8")))
            except RecursionError:
                fault = "it is nested too deeply"
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                fault = str(error)
            if fault:
                was_bad = True
                yield ConfigChange(self._values, {}, fault)
                continue
            names = values.keys() | self._values.keys()
            changed = {
                name: values.get(name)
                for name in sorted(names)
                if values.get(name) != self._values.get(name)
            }
            self._values = values
            if changed or was_bad:
                was_bad = False
                yield ConfigChange(values, changed)


def _flat(content: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested tables as one, by names with dots."""
    flat: dict[str, Any] = {}
    for key, entry in content.items():
        if isinstance(entry, dict):
            flat |= _flat(entry, f"{before}{key}.")
        else:
            flat[before + key] = entry
    return flat
