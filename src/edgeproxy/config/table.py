"""Every setting: its variable, its place in the file, what it allows, what it is for."""

from __future__ import annotations

from pathlib import Path

from edgeproxy import values as value
from edgeproxy.config.api import API
from edgeproxy.config.guards import GUARDS
from edgeproxy.config.listeners import LISTENERS
from edgeproxy.config.postgres import POSTGRES
from edgeproxy.config.setting import Setting
from edgeproxy.config.tls import DOOR
from edgeproxy.engine.choice import KINDS

SETTINGS = (
    Setting(
        "EDGEPROXY_LISTEN_ADDR",
        "proxy.listen_addr",
        "proxy.listen",
        value.listen_address,
        "where clients are accepted; port 0 lets the system choose",
    ),
    Setting(
        "EDGEPROXY_DB_PATH",
        "database.path",
        "database.path",
        Path,
        "the SQLite routing database; made with its schema if missing",
    ),
    Setting(
        "EDGEPROXY_REGION",
        "proxy.region",
        "admission.region",
        value.region,
        "the region of this POP",
    ),
    Setting(
        "EDGEPROXY_APP",
        "proxy.app",
        "admission.app",
        value.text,
        "serve only the backends of this app; unset: all apps as one pool",
    ),
    Setting(
        "EDGEPROXY_DB_RELOAD_SECS",
        "database.reload_secs",
        "database.reload_secs",
        value.interval,
        "how often the routing database and the geo files are looked at",
    ),
    Setting(
        "EDGEPROXY_BINDING_TTL_SECS",
        "affinity.ttl_secs",
        "affinity.ttl_secs",
        value.seconds,
        "how long a client stays bound after it last opened a connection; 0: not at all",
    ),
    Setting(
        "EDGEPROXY_BINDING_GC_INTERVAL_SECS",
        "affinity.gc_interval_secs",
        "affinity.gc_interval_secs",
        value.interval,
        "how often expired bindings are removed from memory",
    ),
    Setting(
        "EDGEPROXY_BINDING_MAX",
        "affinity.max_bindings",
        "affinity.max_bindings",
        value.whole_number(least=1),
        "how many bindings are kept; the one unused for longest makes room",
    ),
    Setting(
        "EDGEPROXY_GEOIP_PATH",
        "geo.database",
        "geo.database",
        Path,
        "a MaxMind-format country or city database; unset: the bundled one",
    ),
    Setting(
        "EDGEPROXY_GEO_OVERRIDES",
        "geo.overrides",
        "geo.overrides",
        Path,
        "a file of `cidr,country[,region]` lines that wins over the database",
    ),
    Setting(
        "EDGEPROXY_CONNECT_TIMEOUT_SECS",
        "timeouts.connect_secs",
        "engine.connect_timeout_secs",
        value.interval,
        "how long one backend may take to answer before the next one is tried",
    ),
    Setting(
        "EDGEPROXY_CONNECT_ATTEMPTS",
        "proxy.connect_attempts",
        "admission.max_attempts",
        value.whole_number(least=1, most=100),
        "how many backends one client is tried on",
    ),
    Setting(
        "EDGEPROXY_PASS_OVER_SECS",
        "proxy.pass_over_secs",
        "ejection.first_secs",
        value.seconds,
        "how long new clients pass a backend over after a failed dial; doubles up to 60 s",
    ),
    Setting(
        "EDGEPROXY_IDLE_TIMEOUT_SECS",
        "timeouts.idle_secs",
        "engine.idle_timeout_secs",
        value.seconds,
        "a connection without a byte either way for so long is closed; 0: never",
    ),
    Setting(
        "EDGEPROXY_USER_TIMEOUT_SECS",
        "timeouts.user_secs",
        "engine.user_timeout_secs",
        value.seconds,
        "a peer that acknowledges nothing for so long is gone; 0: as the system decides",
    ),
    Setting(
        "EDGEPROXY_SHUTDOWN_TIMEOUT_SECS",
        "proxy.shutdown_timeout_secs",
        "proxy.shutdown_timeout_secs",
        value.seconds,
        "how long open connections may take to finish after SIGTERM",
    ),
    *LISTENERS,
    *DOOR,
    *GUARDS,
    *API,
    *POSTGRES,
    Setting(
        "EDGEPROXY_ENGINE",
        "proxy.engine",
        "engine.kind",
        value.one_of(*KINDS),
        "what carries the bytes",
    ),
    Setting(
        "EDGEPROXY_BYTE_THREADS",
        "proxy.byte_threads",
        "engine.byte_threads",
        value.whole_number(least=0, most=64),
        "how many threads of the native engine carry bytes; 0: one for each CPU",
    ),
    Setting(
        "EDGEPROXY_DRAIN_SPREAD_SECS",
        "proxy.drain_spread_secs",
        "proxy.drain_spread_secs",
        value.seconds,
        "those that have not finished are closed one by one in the last so many seconds",
    ),
    Setting(
        "EDGEPROXY_ON_REMOVE",
        "proxy.on_remove",
        "proxy.on_remove",
        value.on_remove,
        "what happens to connections of a removed backend: keep, close or drain:SECONDS",
    ),
    Setting(
        "EDGEPROXY_CONTROL_SOCKET",
        "proxy.control_socket",
        "proxy.control_socket",
        Path,
        "a Unix socket for `edgeproxy status`, `top`, `sessions`, `drain`; unset: none",
    ),
    Setting(
        "EDGEPROXY_ACCESS_LOG",
        "log.access_log",
        "proxy.access_log",
        value.text,
        "where one line of JSON for each connection goes: off, - for stdout, or a file",
    ),
    Setting(
        "EDGEPROXY_LOG_FORMAT",
        "log.format",
        "log.format",
        value.one_of("text", "json"),
        "the form of the lines on stderr",
    ),
    Setting("DEBUG", "log.debug", "log.debug", value.boolean, "log more"),
)
