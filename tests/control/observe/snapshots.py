"""The state of a proxy in which nothing has happened yet."""

from __future__ import annotations

from edgeproxy.control.observe.status_snapshot import StatusSnapshot

NOTHING = StatusSnapshot(
    version="1.0",
    engine="portable",
    region="sa",
    connections=0,
    active=0,
    bytes_in=0,
    bytes_out=0,
    failovers=0,
    refused={},
    closed={},
    dial_failures={},
    bindings=0,
    rate_limited_clients=0,
    table_version=0,
    table_age_secs=0.0,
    rows_skipped=0,
    reload_errors=0,
    loop_lag_secs=0.0,
    descriptors=0,
    uptime_secs=0.0,
)
