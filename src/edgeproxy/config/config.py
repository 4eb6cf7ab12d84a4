"""The configuration: the settings of all parts, and how a `Setting` reads and changes them.

Each part declares its own settings with their defaults, next to the code that they are for.
Only those of the process as a whole are declared here. A `Config` never changes: a reload
makes another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from edgeproxy.api.settings import ApiSettings
from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.config.setting import Setting
from edgeproxy.control.geoip import GeoSettings
from edgeproxy.core.admission.access import AccessSettings
from edgeproxy.core.admission.admission import AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.rate_limit import RateLimitSettings
from edgeproxy.core.backends.breaker import BreakerSettings
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.health import HealthSettings, ProbeSettings
from edgeproxy.core.geo.prefix import Network
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.gate.warm_pool import PoolSettings
from edgeproxy.listeners.settings import ListenSettings
from edgeproxy.listeners.spec import TCP, TLS, Listener
from edgeproxy.log import LogSettings
from edgeproxy.store.postgres.url import PostgresSettings
from edgeproxy.store.sqlite.store import DatabaseSettings
from edgeproxy.tls.settings import TlsListenSettings
from edgeproxy.values import ListenAddress

DEFAULT_METRICS = ListenAddress("0.0.0.0", 9090)  # noqa: S104 — as documented
DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8080)  # noqa: S104 — an edge serves the world


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The process as a whole.

    Attributes:
        listen_addr: Address to accept clients on.
        shutdown_timeout_secs: How long a shutdown waits for open connections to finish.
        drain_spread_secs: The last part of that time, over which it closes those left.
        on_remove: What happens to connections of a removed backend: `keep`, `close` or
            `drain:SECONDS`.
        access_log: Where the line for each connection goes: `off`, `-` or a path.
        control_socket: The path of the Unix socket that answers `edgeproxy status`; `off`: there
            is none; empty: the default path.
    """

    listen_addr: ListenAddress = DEFAULT_LISTEN
    shutdown_timeout_secs: float = 30.0
    drain_spread_secs: float = 0.0
    on_remove: str = "keep"
    access_log: str = "off"
    control_socket: str = ""


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The metrics page.

    Attributes:
        enabled: Serve it.
        listen_addr: Address to serve it on.
        path: Its path.
        allow: Networks that may read it; empty: loopback, private and unique local addresses.
    """

    enabled: bool = False
    listen_addr: ListenAddress = DEFAULT_METRICS
    path: str = "/metrics"
    allow: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Following changes of the configuration file.

    Attributes:
        enabled: Apply changes while the proxy runs.
        interval_secs: Time between two checks of the file.
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
    access: AccessSettings = field(default_factory=AccessSettings)
    rate_limit: RateLimitSettings = field(default_factory=RateLimitSettings)
    circuit_breaker: BreakerSettings = field(default_factory=BreakerSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    config_watch: WatchSettings = field(default_factory=WatchSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    replication: ReplicationSettings = field(default_factory=ReplicationSettings)
    geo: GeoSettings = field(default_factory=GeoSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    listeners: ListenSettings = field(default_factory=ListenSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def listen_settings(self) -> ListenSettings:
        """Return the settings of listeners, with all listeners in `listen`.

        `EDGEPROXY_LISTENERS` replaces the one of `EDGEPROXY_LISTEN_ADDR` and `EDGEPROXY_APP`;
        `EDGEPROXY_TLS_ENABLED` adds one for the same app.
        """
        app = self.admission.app
        listen = self.listeners.listen or (Listener(self.proxy.listen_addr, TCP, app),)
        if self.tls.enabled:
            listen = (*listen, Listener(self.tls.listen_addr, TLS, app))
        return replace(self.listeners, listen=listen)


class Effective(NamedTuple):
    """The value of a setting in force, and its source: the environment, a file or the default."""

    setting: Setting
    value: object
    source: str


@cache
def defaults() -> Config:
    """Return the configuration in which nothing is set."""
    return Config()


def default_of(setting: Setting) -> object:
    """Return the default value of a setting."""
    return value_of(defaults(), setting)


def value_of(config: Config, setting: Setting) -> object:
    """Return the value of a setting in a configuration."""
    return getattr(getattr(config, setting.part), setting.field)


def with_values(config: Config, effective: Iterable[Effective]) -> Config:
    """Return a configuration with these values instead of its own."""
    changed: dict[str, dict[str, object]] = {}
    for each in effective:
        changed.setdefault(each.setting.part, {})[each.setting.field] = each.value
    parts = {part: replace(getattr(config, part), **fields) for part, fields in changed.items()}
    return replace(config, **parts)
