"""The settings of a routing database on a PostgreSQL server."""

from __future__ import annotations

from pathlib import Path

from edgeproxy import values as value
from edgeproxy.config.setting import Setting
from edgeproxy.store.postgres.url import postgres_url

POSTGRES = (
    Setting(
        "EDGEPROXY_POSTGRES_ENABLED",
        "postgres.enabled",
        "postgres.enabled",
        value.boolean,
        "take the backends from a PostgreSQL server instead of a file",
    ),
    Setting(
        "EDGEPROXY_POSTGRES_URL",
        "postgres.url",
        "postgres.url",
        postgres_url,
        "where it is, such as postgres://user:password@host:5432/database",
        is_secret=True,
    ),
    Setting(
        "EDGEPROXY_POSTGRES_MAX_CONNECTIONS",
        "postgres.max_connections",
        "postgres.max_connections",
        value.whole_number(least=2, most=1000),
        "how many connections to it there may be; one listens for changes",
    ),
    Setting(
        "EDGEPROXY_POSTGRES_MIN_CONNECTIONS",
        "postgres.min_connections",
        "postgres.min_connections",
        value.whole_number(least=0, most=1000),
        "how many of them are kept open",
    ),
    Setting(
        "EDGEPROXY_POSTGRES_CONNECT_TIMEOUT_SECS",
        "postgres.connect_timeout_secs",
        "postgres.connect_timeout_secs",
        value.interval,
        "how long one of its hosts may take to answer before the next one is tried",
    ),
    Setting(
        "EDGEPROXY_POSTGRES_QUERY_TIMEOUT_SECS",
        "postgres.query_timeout_secs",
        "postgres.query_timeout_secs",
        value.interval,
        "how long a read or an edit there may take",
    ),
    Setting(
        "EDGEPROXY_POSTGRES_RELOAD_SECS",
        "postgres.reload_secs",
        "postgres.reload_secs",
        value.interval,
        "how often it and the geo files are looked at; it tells of changes by itself, too",
    ),
    Setting(
        "EDGEPROXY_POSTGRES_SNAPSHOT",
        "postgres.snapshot",
        "postgres.snapshot",
        Path,
        "a file that keeps the last good table for a start while it is down; unset: none",
    ),
)
