"""The settings of the API by which backends register."""

from __future__ import annotations

from pathlib import Path

from edgeproxy import values as value
from edgeproxy.config.setting import Setting

API = (
    Setting(
        "EDGEPROXY_API_ENABLED",
        "api.enabled",
        "api.enabled",
        value.boolean,
        "serve the API by which backends register and leave",
    ),
    Setting(
        "EDGEPROXY_API_LISTEN_ADDR",
        "api.listen_addr",
        "api.listen",
        value.listen_address,
        "where the API is served",
    ),
    Setting(
        "EDGEPROXY_HEARTBEAT_TTL_SECS",
        "api.heartbeat_ttl_secs",
        "api.ttl_secs",
        value.interval,
        "a registered backend that is silent for so long gets no clients and is removed",
    ),
    Setting(
        "EDGEPROXY_API_HOME",
        "api.home",
        "api.home",
        value.name,
        "what this POP is called where several register backends in one database; unset: on a "
        "server this host and EDGEPROXY_API_LISTEN_ADDR",
    ),
    Setting(
        "EDGEPROXY_API_ALLOW",
        "api.allow",
        "api.allow",
        value.networks,
        "networks that may call the API; unset: loopback, private and unique local addresses",
    ),
    Setting(
        "EDGEPROXY_API_TOKEN",
        "api.token",
        "api.token",
        value.secret,
        "callers have to show this as a bearer token, except for /health and /ready",
        is_secret=True,
    ),
    Setting(
        "EDGEPROXY_API_TOKEN_FILE",
        "api.token_file",
        "api.token_file",
        Path,
        "a file that holds the token instead",
    ),
    Setting(
        "EDGEPROXY_API_OWN_ADDRESS_ONLY",
        "api.own_address_only",
        "api.own_address_only",
        value.boolean,
        "a backend may register, renew, change and remove only the address that it calls from",
    ),
    Setting(
        "EDGEPROXY_API_MAX_BACKENDS",
        "api.max_backends",
        "api.max_backends",
        value.whole_number(least=1),
        "how many backends may be registered",
    ),
    Setting(
        "EDGEPROXY_API_RATE_LIMIT",
        "api.rate_limit",
        "api.rate_limit",
        value.whole_number(least=0),
        "requests in a second of one caller, after a pause twice as many; 0: no limit",
    ),
    Setting(
        "EDGEPROXY_API_TIMEOUT_SECS",
        "api.timeout_secs",
        "api.timeout_secs",
        value.interval,
        "how long a request and its answer may take",
    ),
)
