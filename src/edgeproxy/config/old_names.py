"""The names of settings that were renamed or removed.

An old name of a setting is read like its new one; what was removed has no effect. Either is a
warning that says what to do, in the environment as in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgeproxy.config.setting import Setting
from edgeproxy.values import boolean, interval, seconds


class OldName(NamedTuple):
    """A former name of a setting.

    Attributes:
        variable: Its environment variable.
        file_key: Its section and key in the file.
        new_variable: The variable of the setting today.
        parse: Turns text into the value that the setting has today. Raises BadValueError.
    """

    variable: str
    file_key: str
    new_variable: str
    parse: Callable[[str], object]


class Removed(NamedTuple):
    """A setting of former versions: its variable, its key in the file, and what applies now."""

    variable: str
    file_key: str
    instead: str


def _log_level(text: str) -> str:
    return "debug" if boolean(text) else "info"


RENAMED = (
    OldName(
        "EDGEPROXY_PREAMBLE_TIMEOUT_SECS",
        "listeners.preamble_timeout_secs",
        "EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS",
        interval,
    ),
    OldName(
        "EDGEPROXY_TLS_HANDSHAKE_TIMEOUT_SECS",
        "tls.handshake_timeout_secs",
        "EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS",
        interval,
    ),
    OldName(
        "EDGEPROXY_CIRCUIT_MOMENT_SECS",
        "circuit_breaker.moment_secs",
        "EDGEPROXY_CIRCUIT_EARLY_CLOSE_SECS",
        seconds,
    ),
    OldName("DEBUG", "log.debug", "EDGEPROXY_LOG_LEVEL", _log_level),
)

REMOVED = (
    Removed(
        "EDGEPROXY_BINDING_GC_INTERVAL_SECS",
        "affinity.gc_interval_secs",
        "expired bindings are removed every 60 s",
    ),
    Removed(
        "EDGEPROXY_RATE_LIMIT_MAX_CLIENTS",
        "rate_limit.max_clients",
        "the rate limit tracks up to 262144 clients",
    ),
    Removed(
        "EDGEPROXY_CIRCUIT_TRIALS",
        "circuit_breaker.trials",
        "one client at a time tries a backend whose circuit is half open",
    ),
    Removed(
        "EDGEPROXY_API_RATE_LIMIT",
        "api.rate_limit",
        "one caller of the API may send 1000 requests per second",
    ),
    Removed(
        "EDGEPROXY_API_TIMEOUT_SECS",
        "api.timeout_secs",
        "a request to the API may take 10 s",
    ),
)


def names_of(setting: Setting) -> tuple[Setting | OldName, ...]:
    """Return everything that names a setting: itself first, then its former names."""
    return (setting, *(old for old in RENAMED if old.new_variable == setting.variable))
