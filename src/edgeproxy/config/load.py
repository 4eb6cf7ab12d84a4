"""Loads the configuration: the value of every setting, and its source.

The environment wins over the TOML file that `EDGEPROXY_CONFIG` names, and the file wins over the
defaults of the parts. An empty variable counts as unset. A bad value is never replaced by a
default: `load` raises one `ConfigError` that lists every bad value, its place and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeproxy.config import file as config_file
from edgeproxy.config.config import (
    Config,
    Effective,
    default_of,
    defaults,
    value_of,
    with_values,
)
from edgeproxy.config.file import FILE_VARIABLE, ConfigFile, nearest, shown
from edgeproxy.config.setting import PREFIX, Setting
from edgeproxy.config.table import SETTINGS
from edgeproxy.core.backends.local_overrides import Overlay
from edgeproxy.errors import ConfigError
from edgeproxy.values import BadValueError

__all__ = (
    "FILE_VARIABLE",
    "Config",
    "Loaded",
    "default_of",
    "load",
    "shown",
    "value_of",
    "with_values",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, and where it comes from.

    Attributes:
        config: The settings of all parts.
        effective: Every setting with its value, in the order of `SETTINGS`.
        warnings: Harmless oddities, for instance an unknown variable.
        overlays: What the file sets for single backends, by id.
        pinned: The text in the file of each setting that the environment overrides, by variable.
    """

    config: Config
    effective: tuple[Effective, ...]
    warnings: tuple[str, ...]
    overlays: Mapping[str, Overlay] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)


def load(environ: Mapping[str, str]) -> Loaded:
    """Return the configuration for this environment. Raises ConfigError."""
    faults: list[str] = []
    path = environ.get(FILE_VARIABLE, "")
    file = config_file.read(Path(path), faults) if path else ConfigFile()
    effective = []
    for setting in SETTINGS:
        source, text, where = "default", None, ""
        if environ.get(setting.variable):
            source, text = "environment", environ[setting.variable]
            where = f"{setting.variable}={_quoted(setting, text)}"
        elif setting.file_key in file.texts:
            key = setting.file_key
            source, text = path, file.texts[key]
            where = f"{path}: {file.where(key)}{key} = {_quoted(setting, text)}"
        value = default_of(setting)
        if text is not None:
            try:
                value = setting.parse(text)
            except BadValueError as bad:
                faults.append(f"{where}: {bad}")
        effective.append(Effective(setting, value, source))
    warnings = [_unknown(name) for name in sorted(environ) if _is_unknown(name)]
    config = with_values(defaults(), effective)
    faults.extend(_missing_command(config, file, path))
    faults.extend(_postgres_faults(config))
    if faults:
        raise ConfigError("\n  ".join(["the configuration is not valid:", *faults, *warnings]))
    pinned = {
        each.variable: file.texts[each.file_key]
        for each in SETTINGS
        if each.file_key in file.texts and environ.get(each.variable)
    }
    return Loaded(config, tuple(effective), tuple(warnings), file.overlays, pinned)


def _quoted(setting: Setting, text: str) -> str:
    """Return the text of a setting as a message may show it."""
    return "'***'" if setting.is_secret else repr(text)


def _missing_command(config: Config, file: ConfigFile, path: str) -> list[str]:
    """Return the places that ask for exec probes, if no command is set."""
    if not config.probe.enabled or config.probe.command:
        return []
    places = ["EDGEPROXY_HEALTH_CHECK_TYPE='exec'"] if config.probe.kind == "exec" else []
    for backend_id, overlay in file.overlays.items():
        if overlay.check_type == "exec":
            place = f"backends.{backend_id}.health_check_type"
            places.append(f"{path}: {file.where(place)}{place} = 'exec'")
    return [f"{place}: EDGEPROXY_HEALTH_CHECK_COMMAND says what to run" for place in places]


def _postgres_faults(config: Config) -> list[str]:
    """Return which PostgreSQL settings are missing or contradict each other."""
    postgres = config.postgres
    faults = []
    if postgres.enabled and postgres.url is None:
        faults.append(
            "EDGEPROXY_POSTGRES_ENABLED='true': EDGEPROXY_POSTGRES_URL says where it is, such as "
            "postgres://user:password@host:5432/database"
        )
    if postgres.min_connections > postgres.max_connections:
        faults.append(
            f"EDGEPROXY_POSTGRES_MIN_CONNECTIONS='{postgres.min_connections}': allowed are no more "
            f"than EDGEPROXY_POSTGRES_MAX_CONNECTIONS, {postgres.max_connections}"
        )
    return faults


def _is_unknown(name: str) -> bool:
    known = name == FILE_VARIABLE or any(name == each.variable for each in SETTINGS)
    return name.startswith(PREFIX) and not known


def _unknown(name: str) -> str:
    names = {each.variable for each in SETTINGS} | {FILE_VARIABLE}
    return f"{name} is not a known variable and does nothing{nearest(name, names)}"
