"""Reads the configuration: every setting's value, and where it came from.

Values come from the environment, from the TOML file named by `EDGEPROXY_CONFIG`, or are
the defaults of the parts' own settings; environment wins over file, file over default. An
empty variable counts as unset. Nothing is ever replaced silently: `load` raises one
`ConfigError` that lists every bad value, where it stands and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from edgeproxy.api.settings import ApiSettings
from edgeproxy.config import file as config_file
from edgeproxy.config.file import FILE_VARIABLE, ConfigFile, nearest, shown
from edgeproxy.config.setting import Setting
from edgeproxy.config.table import SETTINGS
from edgeproxy.control.geoip import GeoSettings
from edgeproxy.core.admission.access import AccessSettings
from edgeproxy.core.admission.admission import AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.rate_limit import RateLimitSettings
from edgeproxy.core.backends.breaker import BreakerSettings
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.health import HealthSettings, ProbeSettings
from edgeproxy.core.backends.local_overrides import Overlay
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.errors import ConfigError
from edgeproxy.gate.warm_pool import PoolSettings
from edgeproxy.listeners.spec import DoorSettings
from edgeproxy.log import LogSettings
from edgeproxy.store.postgres.url import PostgresSettings
from edgeproxy.store.sqlite.store import DatabaseSettings
from edgeproxy.tls.settings import TlsListenSettings
from edgeproxy.values import BadValueError, ListenAddress

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

PREFIX = "EDGEPROXY_"
DEFAULT_METRICS = ListenAddress("0.0.0.0", 9090)  # noqa: S104 — as documented
DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8080)  # noqa: S104 — an edge serves the world


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The process as a whole.

    Attributes:
        listen: Where clients are accepted.
        shutdown_timeout_secs: How long open connections may take to finish at the end.
        drain_spread_secs: Over how much of its end those that did not finish are closed.
        on_remove: What happens to connections of a removed backend: `keep`, `close` or
            `drain:SECONDS`.
        access_log: Where a line for each connection is written: `off`, `-` or a path.
        control_socket: Where the running proxy can be asked and told; None: nowhere.
    """

    listen: ListenAddress = DEFAULT_LISTEN
    shutdown_timeout_secs: float = 30.0
    drain_spread_secs: float = 0.0
    on_remove: str = "keep"
    access_log: str = "off"
    control_socket: Path | None = None


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The page of metrics.

    Attributes:
        enabled: Whether there is one.
        listen: Where.
        path: Its path.
    """

    enabled: bool = False
    listen: ListenAddress = DEFAULT_METRICS
    path: str = "/metrics"


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Whether changes of the configuration file are followed.

    Attributes:
        enabled: Whether they are.
        interval_secs: How often the file is looked at.
    """

    enabled: bool = False
    interval_secs: float = 5.0


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of all parts."""

    proxy: ProxySettings = field(default_factory=ProxySettings)
    tls: TlsListenSettings = field(default_factory=TlsListenSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    affinity: AffinitySettings = field(default_factory=AffinitySettings)
    ejection: EjectionSettings = field(default_factory=EjectionSettings)
    entrance: AccessSettings = field(default_factory=AccessSettings)
    rate: RateLimitSettings = field(default_factory=RateLimitSettings)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    geo: GeoSettings = field(default_factory=GeoSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    door: DoorSettings = field(default_factory=DoorSettings)
    log: LogSettings = field(default_factory=LogSettings)


@dataclass(frozen=True, slots=True)
class Effective:
    """A setting's value in force and where it came from."""

    setting: Setting
    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `load` found.

    Attributes:
        config: The settings of all parts.
        effective: Every setting with its value, in the order of `SETTINGS`.
        warnings: What is odd but harmless, for instance an unknown variable.
        overlays: What the file says of single backends, by id.
        pinned: The text in the file of what the environment decides, by variable.
    """

    config: Config
    effective: tuple[Effective, ...]
    warnings: tuple[str, ...]
    overlays: Mapping[str, Overlay] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)


def load(environ: Mapping[str, str]) -> Loaded:
    """Return the configuration that this environment asks for. Raises ConfigError."""
    faults: list[str] = []
    path = environ.get(FILE_VARIABLE, "")
    file = config_file.read(Path(path), faults) if path else ConfigFile()
    effective = []
    for setting in SETTINGS:
        source, text, where = "default", None, ""
        if environ.get(setting.variable):
            source, text = "environment", environ[setting.variable]
            where = f"{setting.variable}={_quoted(setting, text)}"
        elif setting.place in file.texts:
            source, text = path, file.texts[setting.place]
            where = f"{path}: {file.where(setting.place)}{setting.place} = {_quoted(setting, text)}"
        chosen = default_of(setting)
        if text is not None:
            try:
                chosen = setting.parse(text)
            except BadValueError as bad:
                faults.append(f"{where}: {bad}")
        effective.append(Effective(setting, chosen, source))
    warnings = [_unknown(name) for name in sorted(environ) if _is_unknown(name)]
    config = with_values(_defaults(), effective)
    faults.extend(_without_command(config, file, path))
    faults.extend(_without_server(config))
    if faults:
        raise ConfigError("\n  ".join(["the configuration is not valid:", *faults, *warnings]))
    pinned = {
        each.variable: file.texts[each.place]
        for each in SETTINGS
        if each.place in file.texts and environ.get(each.variable)
    }
    return Loaded(config, tuple(effective), tuple(warnings), file.overlays, pinned)


def _quoted(setting: Setting, text: str) -> str:
    """Return what was given as a message may show it."""
    return "'***'" if setting.is_secret else repr(text)


def _without_command(config: Config, file: ConfigFile, path: str) -> list[str]:
    """Return where commands are asked for as probes, if there is none to run."""
    if not config.probe.enabled or config.probe.command:
        return []
    places = ["EDGEPROXY_HEALTH_CHECK_TYPE='exec'"] if config.probe.kind == "exec" else []
    for backend_id, overlay in file.overlays.items():
        if overlay.check_type == "exec":
            place = f"backends.{backend_id}.health_check_type"
            places.append(f"{path}: {file.where(place)}{place} = 'exec'")
    return [f"{place}: EDGEPROXY_HEALTH_CHECK_COMMAND says what to run" for place in places]


def _without_server(config: Config) -> list[str]:
    """Return what is missing of a PostgreSQL server that is asked for, or does not fit."""
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


def default_of(setting: Setting) -> object:
    """Return the default value of a setting."""
    return value_of(_defaults(), setting)


def value_of(config: Config, setting: Setting) -> object:
    """Return what a setting is in a configuration."""
    part, name = setting.target.split(".")
    return getattr(getattr(config, part), name)


def with_values(config: Config, effective: Iterable[Effective]) -> Config:
    """Return a configuration with these values instead of its own."""
    from dataclasses import replace

    chosen: dict[str, dict[str, object]] = {}
    for each in effective:
        part, name = each.setting.target.split(".")
        chosen.setdefault(part, {})[name] = each.value
    parts = {part: replace(getattr(config, part), **fields) for part, fields in chosen.items()}
    return replace(config, **parts)


@cache
def _defaults() -> Config:
    return Config()


def _is_unknown(name: str) -> bool:
    known = name == FILE_VARIABLE or any(name == each.variable for each in SETTINGS)
    return name.startswith(PREFIX) and not known


def _unknown(name: str) -> str:
    names = {each.variable for each in SETTINGS} | {FILE_VARIABLE}
    return f"{name} is not a known variable and does nothing{nearest(name, names)}"
