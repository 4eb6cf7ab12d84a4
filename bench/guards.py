"""edgeproxy with one guard on, with all of them, and with none: what each costs.

All guards are as wide as a barn door: nobody is turned away, so that the same work is done. Without
any, edgeproxy is measured twice a round; as far as these two are apart, nothing else can be told.
"""

from __future__ import annotations

from dataclasses import replace

from bench.report import ALL_BUT_LOG, ALL_GUARDS, PLAIN
from bench.subjects import Subject, all_subjects, edgeproxy

MEASURES = "connect-1,connect-64,message-64,idle-1000"
"""Those that guards have to do with."""

ACCESS_LOG = "access-log"
GUARDS = {
    "lists": {"EDGEPROXY_ALLOW": "10.0.0.0/8,127.0.0.0/8", "EDGEPROXY_DENY": "192.0.2.0/24"},
    "per-client": {"EDGEPROXY_MAX_CONNS_PER_CLIENT": "1000000"},
    "rate-limit": {
        "EDGEPROXY_RATE_LIMIT_ENABLED": "true",
        "EDGEPROXY_RATE_LIMIT_MAX_REQUESTS": "1000000",
        "EDGEPROXY_RATE_LIMIT_BURST": "1000000",
    },
    "breaker": {
        "EDGEPROXY_CIRCUIT_BREAKER_ENABLED": "true",
        "EDGEPROXY_CIRCUIT_EARLY_CLOSE_SECS": "1",
    },
    "health-check": {
        "EDGEPROXY_HEALTH_CHECK_ENABLED": "true",
        "EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS": "1",
    },
    "metrics": {
        "EDGEPROXY_METRICS_ENABLED": "true",
        "EDGEPROXY_METRICS_LISTEN_ADDR": "127.0.0.1:0",
    },
    "control-socket": {"EDGEPROXY_CONTROL_SOCKET": "control"},
    ACCESS_LOG: {"EDGEPROXY_ACCESS_LOG": "access.log"},
}
"""By name, as in the tables. Files are in the folder of the sample."""
POOL = {"EDGEPROXY_POOL_ENABLED": "true"}
"""No guard, and no gain either with a backend as near as here: only its price."""


def guarded_subjects() -> list[Subject]:
    """Return edgeproxy without guards, twice, with each, with all, and without the access log.

    A line for each connection is the one thing that costs by itself: hence the last one.
    """
    (plain,) = (each for each in all_subjects() if each.name == PLAIN)
    every = {variable: text for each in GUARDS.values() for variable, text in each.items()}
    but_log = {name: text for name, text in every.items() if name not in GUARDS[ACCESS_LOG]}
    settings = {
        f"{PLAIN}+nothing": {},
        **{f"{PLAIN}+{name}": each for name, each in GUARDS.items()},
        f"{PLAIN}+pool": POOL,
        ALL_BUT_LOG: but_log,
        ALL_GUARDS: every,
    }
    guarded = (
        replace(plain, name=name, prepare=edgeproxy("native", each))
        for name, each in settings.items()
    )
    return [plain, *guarded]
