"""Every setting: its variable, its place in the file, what it allows, what it is for.

Defaults are those of the parts' own settings; see `config.Config`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeproxy import value
from edgeproxy.control import probe
from edgeproxy.engine.choice import KINDS


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set.

    Attributes:
        variable: Its environment variable.
        place: Its section and key in the file, for instance `database.path`.
        target: Its part and field in `Config`.
        parse: Turns text into the value; raises BadValueError.
        meaning: One line for people.
    """

    variable: str
    place: str
    target: str
    parse: Callable[[str], object]
    meaning: str


_SECONDS = value.number("seconds", least=0)
_INTERVAL = value.number("seconds", least=0.05)

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
        _INTERVAL,
        "how often the routing database and the geo files are looked at",
    ),
    Setting(
        "EDGEPROXY_BINDING_TTL_SECS",
        "affinity.ttl_secs",
        "affinity.ttl_secs",
        _SECONDS,
        "how long a client stays bound after it last opened a connection; 0: not at all",
    ),
    Setting(
        "EDGEPROXY_BINDING_GC_INTERVAL_SECS",
        "affinity.gc_interval_secs",
        "affinity.gc_interval_secs",
        _INTERVAL,
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
        _INTERVAL,
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
        _SECONDS,
        "how long new clients pass a backend over after a failed dial; doubles up to 60 s",
    ),
    Setting(
        "EDGEPROXY_IDLE_TIMEOUT_SECS",
        "timeouts.idle_secs",
        "engine.idle_timeout_secs",
        _SECONDS,
        "a connection without a byte either way for so long is closed; 0: never",
    ),
    Setting(
        "EDGEPROXY_USER_TIMEOUT_SECS",
        "timeouts.user_secs",
        "engine.user_timeout_secs",
        _SECONDS,
        "a peer that acknowledges nothing for so long is gone; 0: as the system decides",
    ),
    Setting(
        "EDGEPROXY_SHUTDOWN_TIMEOUT_SECS",
        "proxy.shutdown_timeout_secs",
        "proxy.shutdown_timeout_secs",
        _SECONDS,
        "how long open connections may take to finish after SIGTERM",
    ),
    Setting(
        "EDGEPROXY_ALLOW",
        "entrance.allow",
        "entrance.allow",
        value.networks,
        "networks whose clients may connect, with commas between; unset: all",
    ),
    Setting(
        "EDGEPROXY_DENY",
        "entrance.deny",
        "entrance.deny",
        value.networks,
        "networks whose clients may not connect, allowed or not",
    ),
    Setting(
        "EDGEPROXY_MAX_CONNS_PER_CLIENT",
        "entrance.max_conns_per_client",
        "entrance.max_connections",
        value.whole_number(least=0),
        "how many connections one client may have at a time; 0: no limit",
    ),
    Setting(
        "EDGEPROXY_RATE_LIMIT_ENABLED",
        "rate_limit.enabled",
        "rate.enabled",
        value.boolean,
        "limit how fast one client opens connections",
    ),
    Setting(
        "EDGEPROXY_RATE_LIMIT_MAX_REQUESTS",
        "rate_limit.max_requests",
        "rate.max_requests",
        value.whole_number(least=1),
        "connections in each window",
    ),
    Setting(
        "EDGEPROXY_RATE_LIMIT_WINDOW_SECS",
        "rate_limit.window_secs",
        "rate.window_secs",
        value.number("seconds", least=0.001),
        "length of a window",
    ),
    Setting(
        "EDGEPROXY_RATE_LIMIT_BURST",
        "rate_limit.burst",
        "rate.burst",
        value.whole_number(least=1),
        "how many connections at once, after a pause",
    ),
    Setting(
        "EDGEPROXY_RATE_LIMIT_MAX_CLIENTS",
        "rate_limit.max_clients",
        "rate.max_clients",
        value.whole_number(least=1),
        "how many clients are remembered; the one unseen for longest makes room",
    ),
    Setting(
        "EDGEPROXY_CIRCUIT_BREAKER_ENABLED",
        "circuit_breaker.enabled",
        "breaker.enabled",
        value.boolean,
        "cut off backends that fail again and again",
    ),
    Setting(
        "EDGEPROXY_CIRCUIT_FAILURE_THRESHOLD",
        "circuit_breaker.failure_threshold",
        "breaker.failure_threshold",
        value.whole_number(least=1),
        "failures in a row that cut a backend off",
    ),
    Setting(
        "EDGEPROXY_CIRCUIT_SUCCESS_THRESHOLD",
        "circuit_breaker.success_threshold",
        "breaker.success_threshold",
        value.whole_number(least=1),
        "answers after which it is in use again",
    ),
    Setting(
        "EDGEPROXY_CIRCUIT_TIMEOUT_SECS",
        "circuit_breaker.timeout_secs",
        "breaker.timeout_secs",
        _INTERVAL,
        "how long it is cut off before it is tried again",
    ),
    Setting(
        "EDGEPROXY_CIRCUIT_TRIALS",
        "circuit_breaker.trials",
        "breaker.trials",
        value.whole_number(least=1),
        "how many clients at a time try it then",
    ),
    Setting(
        "EDGEPROXY_CIRCUIT_MOMENT_SECS",
        "circuit_breaker.moment_secs",
        "breaker.moment_secs",
        _SECONDS,
        "a connection that the backend ends within so long, mute, is a failure too; 0: it is none",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_ENABLED",
        "health_check.enabled",
        "probe.enabled",
        value.boolean,
        "probe the backends",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS",
        "health_check.interval_secs",
        "probe.interval_secs",
        _INTERVAL,
        "from one probe of a backend to the next",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS",
        "health_check.timeout_secs",
        "probe.timeout_secs",
        _INTERVAL,
        "how long a probe may take",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_TYPE",
        "health_check.type",
        "probe.kind",
        value.one_of(*probe.KINDS),
        "how a backend is probed",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_PATH",
        "health_check.path",
        "probe.path",
        value.http_path,
        "what is asked for by HTTP",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_STATUS",
        "health_check.status",
        "probe.status",
        value.whole_number(least=100, most=599),
        "the status that is expected by HTTP",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_HOST",
        "health_check.host",
        "probe.host",
        value.host_header,
        "the Host header of HTTP probes; unset: the backend's address",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_SERVICE",
        "health_check.service",
        "probe.service",
        value.text,
        "which service is asked for by gRPC; unset: the server as a whole",
    ),
    Setting(
        "EDGEPROXY_HEALTH_CHECK_COMMAND",
        "health_check.command",
        "probe.command",
        value.command,
        "what is run by exec probes; exit code 0 is well",
    ),
    Setting(
        "EDGEPROXY_HEALTH_HEALTHY_THRESHOLD",
        "health_check.healthy_threshold",
        "health.healthy_threshold",
        value.whole_number(least=1),
        "successes in a row that bring a backend up",
    ),
    Setting(
        "EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD",
        "health_check.unhealthy_threshold",
        "health.unhealthy_threshold",
        value.whole_number(least=1),
        "failures in a row that take it down",
    ),
    Setting(
        "EDGEPROXY_HEALTH_SLOW_START_SECS",
        "health_check.slow_start_secs",
        "health.slow_start_secs",
        _SECONDS,
        "how long a backend that came up takes to its full share; 0: at once",
    ),
    Setting(
        "EDGEPROXY_HEALTH_PANIC",
        "health_check.panic",
        "health.panic",
        value.boolean,
        "where probes call all backends of an app down, try them all",
    ),
    Setting(
        "EDGEPROXY_METRICS_ENABLED",
        "metrics.enabled",
        "metrics.enabled",
        value.boolean,
        "serve metrics for Prometheus, and /health",
    ),
    Setting(
        "EDGEPROXY_METRICS_LISTEN_ADDR",
        "metrics.listen_addr",
        "metrics.listen",
        value.listen_address,
        "where metrics are served",
    ),
    Setting(
        "EDGEPROXY_METRICS_PATH",
        "metrics.path",
        "metrics.path",
        value.http_path,
        "the path of the metrics",
    ),
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
