"""Watches a TOML file and reports which of its values have changed."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from edgeproxy.control.file_watch import changes
from edgeproxy.regular_file import MAX_CONFIG_BYTES, read_text


class ConfigChange(NamedTuple):
    """The content of a file after a change.

    Attributes:
        values: All values, by `section.key`.
        changed: The values that changed; None for one that was removed.
        fault: Why the file cannot be read, or "". With a fault, `values` are the last good ones.
            The first change without a fault after a fault says that it is over, even if no value
            has changed.
    """

    values: dict[str, Any]
    changed: dict[str, Any]
    fault: str = ""


class ConfigWatcher:
    """Watches one file. Iterate over `changes()`.

    Args:
        path: The TOML file.
        interval_secs: Seconds between polls of the file, besides change notifications.
    """

    def __init__(self, path: str | Path, interval_secs: float = 5.0) -> None:
        if not interval_secs > 0:
            raise ValueError("interval_secs must be more than 0")
        self._path = Path(path)
        self._interval_secs = interval_secs
        self._values: dict[str, Any] = {}

    async def changes(self) -> AsyncIterator[ConfigChange]:
        """Yield the content of the file now, and again after each change."""
        was_bad = False
        async for _ in changes(self._path, self._interval_secs):
            fault = ""
            try:
                values = _flat(tomllib.loads(read_text(self._path, MAX_CONFIG_BYTES)))
            except RecursionError:
                fault = "it is nested too deeply"
            except (OSError, ValueError) as error:
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
    """Return nested tables as one dictionary, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, entry in content.items():
        if isinstance(entry, dict):
            flat |= _flat(entry, f"{before}{key}.")
        else:
            flat[before + key] = entry
    return flat
