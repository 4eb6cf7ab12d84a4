"""Applies a configuration that was read again, as far as that is possible without a restart.

A file that does not validate changes nothing. Settings that need a restart, and settings that the
environment overrides, are reported by name.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from edgeproxy.config import load as config
from edgeproxy.config.load import Config, Loaded
from edgeproxy.core.admission.admission import Admission
from edgeproxy.engine.contract import Engine
from edgeproxy.errors import ConfigError
from edgeproxy.listeners.listeners import Listeners
from edgeproxy.log import EventLog, set_level
from edgeproxy.process.publisher import Publisher

log = EventLog("config")
_app_log = EventLog("app")


class InForce:
    """The configuration in force.

    Attributes:
        loaded: What was read last.
        config: The settings in force: those that need a restart are still those of the start.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.config = loaded.config

    def replace(self, loaded: Loaded, config: Config) -> None:
        """Put another configuration into force."""
        self.loaded = loaded
        self.config = config


class Reloaded(NamedTuple):
    """The configuration that was read, the one to put in force, and what changes with it.

    `variables` and `backends` are the names of settings and ids of backends that changed.
    """

    loaded: Loaded
    config: Config
    variables: tuple[str, ...]
    backends: tuple[str, ...]

    def tell(self) -> None:
        """Log what changed, now that it is in force."""
        changed = {"variables": self.variables, "backends": self.backends}
        log.info(
            "config_reloaded", **{name: ",".join(each) for name, each in changed.items() if each}
        )


def reload(before: Loaded, in_force: Config) -> Reloaded:
    """Read the configuration again, and return what changes. Raises ConfigError."""
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


class Reload:
    """Reads the configuration again when asked to, and gives each part its new settings."""

    def __init__(
        self,
        in_force: InForce,
        engine: Engine,
        admission: Admission,
        listeners: Listeners,
        publisher: Publisher,
    ) -> None:
        self._in_force = in_force
        self._engine = engine
        self._admission = admission
        self._listeners = listeners
        self._publisher = publisher
        self._is_asked = False

    def ask(self) -> None:
        """Let the next `check` read the configuration; from any thread."""
        self._is_asked = True

    def check(self) -> bool:
        """Read the configuration if asked to; return whether that changed anything."""
        if not self._is_asked:
            return False
        self._is_asked = False
        before = self._in_force.loaded
        try:
            read = reload(before, self._in_force.config)
        except ConfigError as error:
            head, *faults = str(error).split("\n  ")
            _app_log.warning("config_bad", reason=f"{head} {'; '.join(faults)}".rstrip())
            return False
        self._in_force.replace(read.loaded, read.config)
        if not (read.variables or read.backends):
            return False
        self._apply(before, read)
        return True

    def _apply(self, before: Loaded, read: Reloaded) -> None:
        config = read.config
        self._engine.call(lambda: self._admission.access.change(config.access, config.rate_limit))
        self._engine.call(lambda: self._admission.change(config.circuit_breaker, config.health))
        set_level(config.log.level)
        old, new = before.config.listeners, config.listeners
        if read.backends or (old.listen, old.routes) != (new.listen, new.routes):
            self._publisher.publish_again()
        # After the table: it has the backends of a new listener's app.
        self._listeners.change(config.listen_settings())
        # On the gate thread, last: when it is logged, all of it is in force.
        self._engine.call(read.tell)
