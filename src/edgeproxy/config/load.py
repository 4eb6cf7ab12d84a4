"""Loads the configuration: the value of every setting, and its source.

The environment wins over the TOML file that `EDGEPROXY_CONFIG` names, and the file wins over the
defaults of the parts. An empty variable counts as unset. A bad value is never replaced by a
default: `load` raises one `ConfigError` that lists every bad value, its place and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edgeproxy.cluster.settings import faults_of as replication_faults
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
from edgeproxy.config.old_names import REMOVED, RENAMED, OldName, names_of
from edgeproxy.config.setting import PREFIX, Setting
from edgeproxy.config.table import SETTINGS
from edgeproxy.core.backends.health import COMMAND_PREFIX
from edgeproxy.core.backends.local_overrides import Overlay
from edgeproxy.errors import ConfigError
from edgeproxy.values import BadValueError

__all__ = (
    "FILE_VARIABLE",
    "Config",
    "Loaded",
    "default_of",
    "examine",
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


class _Text(NamedTuple):
    """The text of a setting, the name that it was given under, and the place."""

    text: str
    name: Setting | OldName
    place: str


class Examined(NamedTuple):
    """A configuration with defaults in place of the values at fault.

    Attributes:
        loaded: What is valid.
        faults: What is not.
        unsure: The parts of `Config` that are not as they were meant.
    """

    loaded: Loaded
    faults: tuple[str, ...]
    unsure: frozenset[str]


def load(environ: Mapping[str, str]) -> Loaded:
    """Return the configuration for this environment. Raises ConfigError."""
    loaded, faults, _ = examine(environ)
    if faults:
        head = "the configuration is not valid:"
        raise ConfigError("\n  ".join([head, *faults, *loaded.warnings]))
    return loaded


def examine(environ: Mapping[str, str]) -> Examined:
    """Return what this environment says, as far as it is valid."""
    faults: list[str] = []
    unsure: set[str] = set()
    path = environ.get(FILE_VARIABLE, "")
    file = config_file.read(Path(path), faults) if path else ConfigFile()
    if faults:  # a name that is not known may have been meant for any other
        unsure.update(setting.part for setting in SETTINGS)
    effective = []
    pinned = {}
    warnings = [_unknown(name) for name in sorted(environ) if _is_unknown(name)]
    for setting in SETTINGS:
        from_environ, from_file = _in_environ(setting, environ), _in_file(setting, file, path)
        used = _used(setting, from_environ, from_file)
        before = len(faults)
        value = _value(setting, used, faults, warnings)
        if len(faults) > before:
            unsure.add(setting.part)
        warnings.extend(
            f"{each.place} has no effect next to {used[0].place}; remove it"
            for each in (*from_environ, *from_file)
            if each.name is not setting and each not in used
        )
        source = "environment" if from_environ else path if from_file else "default"
        effective.append(Effective(setting, value, source))
        if from_environ and from_file:
            pinned[setting.variable] = from_file[0].text
    warnings.extend(_removed(environ, file, path))
    config = with_values(defaults(), effective)
    for part, more in (
        ("probe", _missing_command(config, file, path)),
        ("postgres", _postgres_faults(config)),
        ("tls", _half_a_pair(config)),
        ("replication", _replication_faults(config)),
    ):
        faults.extend(more)
        if more:
            unsure.add(part)
    loaded = Loaded(config, tuple(effective), tuple(warnings), file.overlays, pinned)
    return Examined(loaded, tuple(faults), frozenset(unsure))


def _in_environ(setting: Setting, environ: Mapping[str, str]) -> list[_Text]:
    """Return what the environment says of a setting, under its own name first."""
    return [
        _Text(text, name, f"{name.variable}={_quoted(setting, text)}")
        for name in names_of(setting)
        if (text := environ.get(name.variable))
    ]


def _in_file(setting: Setting, file: ConfigFile, path: str) -> list[_Text]:
    """Return what the file says of a setting, under its own name first."""
    return [
        _Text(text, name, f"{path}: {file.where(key)}{key} = {_quoted(setting, text)}")
        for name in names_of(setting)
        if (text := file.texts.get(key := name.file_key)) is not None
    ]


def _used(setting: Setting, from_environ: list[_Text], from_file: list[_Text]) -> list[_Text]:
    """Return the texts that decide: the environment's, else the file's; the own name's, else all.

    Where a setting replaces several, each of those is read from the environment, else the file.
    """
    texts = from_environ or from_file
    if texts and texts[0].name is setting:
        return texts[:1]
    if from_file and from_file[0].name is setting:
        return texts
    return list({each.name: each for each in (*from_file, *from_environ)}.values())


def _value(setting: Setting, used: list[_Text], faults: list[str], warnings: list[str]) -> object:
    """Return the value of a setting; add what is wrong, and what to write instead of old names."""
    values: list[Any] = []
    for each in used:
        try:
            values.append(each.name.parse(each.text))
        except BadValueError as bad:
            faults.append(f"{each.place}: {bad}")
    if not values or len(values) < len(used):
        return default_of(setting)
    if used[0].name is not setting and len(used) < len(names_of(setting)) - 1:
        values.append(default_of(setting))  # of the old setting that is not set
    value = max(values)  # where one setting replaces several, the longest of their times
    for each in used:
        if each.name is not setting:
            new = f"{setting.variable} or {setting.file_key}"
            warnings.append(f"{each.place} still works; set {new} to {shown(value)!r} instead")
    return value


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
    return [f"{place}: set EDGEPROXY_HEALTH_CHECK_COMMAND, too" for place in places]


def _postgres_faults(config: Config) -> list[str]:
    """Return which PostgreSQL settings are missing or contradict each other."""
    postgres = config.postgres
    faults = []
    if postgres.enabled and postgres.url is None:
        faults.append(
            "EDGEPROXY_POSTGRES_ENABLED='true': set EDGEPROXY_POSTGRES_URL, too, such as "
            "postgres://user:password@host:5432/database"
        )
    if postgres.min_connections > postgres.max_connections:
        faults.append(
            f"EDGEPROXY_POSTGRES_MIN_CONNECTIONS='{postgres.min_connections}': allowed are no more "
            f"than EDGEPROXY_POSTGRES_MAX_CONNECTIONS, {postgres.max_connections}"
        )
    return faults


def _replication_faults(config: Config) -> list[str]:
    database, uses_server = config.database.path, config.postgres.enabled
    return replication_faults(config.replication, database, uses_server=uses_server)


def _half_a_pair(config: Config) -> list[str]:
    """Return what is wrong if a certificate is set without its key, or the reverse."""
    given = {"EDGEPROXY_TLS_CERT": config.tls.cert, "EDGEPROXY_TLS_KEY": config.tls.key}
    lacking = [name for name, path in given.items() if path is None]
    if len(lacking) != 1 or not config.listen_settings().speaks_tls:
        return []
    [(name, path)] = [each for each in given.items() if each[1] is not None]
    instead = "the certificates of EDGEPROXY_TLS_CERT_DIR or a self-signed one"
    return [f"{name}={str(path)!r}: set {lacking[0]}, too, or none of them for {instead}"]


def _removed(environ: Mapping[str, str], file: ConfigFile, path: str) -> list[str]:
    """Return a warning for each removed setting that is still given, with what to do."""
    places = [
        (f"{old.variable}={environ[old.variable]!r}", old)
        for old in REMOVED
        if environ.get(old.variable)
    ] + [
        (f"{path}: {file.where(key)}{key} = {file.texts[key]!r}", old)
        for old in REMOVED
        if (key := old.file_key) in file.texts
    ]
    return [f"{place} has no effect: {old.instead}; remove it" for place, old in places]


def _is_unknown(name: str) -> bool:
    if not name.startswith(PREFIX) or name.startswith(COMMAND_PREFIX) or name in _variables():
        return False
    return all(name != old.variable for old in (*RENAMED, *REMOVED))


def _unknown(name: str) -> str:
    return f"{name} is not a known variable and does nothing{nearest(name, _variables())}"


def _variables() -> set[str]:
    return {FILE_VARIABLE, *(each.variable for each in SETTINGS)}
