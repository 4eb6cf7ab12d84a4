"""What a configuration that was read again changes, and what of that can be in force at once.

A file that does not validate changes nothing. What can only change with a restart, and what the
environment decides whatever the file says, is reported by name.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from edgeproxy.config import load as config
from edgeproxy.config.load import Config, Loaded
from edgeproxy.log import EventLog

log = EventLog("config")


class Reloaded(NamedTuple):
    """What was read, what is to be in force with it, and what of that is something else.

    `variables` and `backends` are the names of settings and ids of backends that changed.
    """

    loaded: Loaded
    config: Config
    variables: tuple[str, ...]
    backends: tuple[str, ...]

    def tell(self) -> None:
        """Say what changed, now that it is in force."""
        log.info(
            "config_reloaded",
            variables=",".join(self.variables),
            backends=",".join(self.backends),
        )


def reload(before: Loaded, in_force: Config) -> Reloaded:
    """Read the configuration again, and say what changes. Raises ConfigError."""
    loaded = config.load(os.environ)
    pinned = sorted(
        variable for variable, text in loaded.pinned.items() if before.pinned.get(variable) != text
    )
    if pinned:
        log.warning("config_pinned", variables=",".join(pinned))
    changed = [
        each for each in loaded.effective if each.value != config.value_of(in_force, each.setting)
    ]
    waiting = [each.setting.variable for each in changed if not each.setting.is_live]
    if waiting:
        log.warning("config_needs_restart", variables=",".join(waiting))
    live = [each for each in changed if each.setting.is_live]
    backends = sorted(
        backend_id
        for backend_id in loaded.overlays.keys() | before.overlays.keys()
        if loaded.overlays.get(backend_id) != before.overlays.get(backend_id)
    )
    return Reloaded(
        loaded,
        config.with_values(in_force, live),
        tuple(each.setting.variable for each in live),
        tuple(backends),
    )
