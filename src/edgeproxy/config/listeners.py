"""The settings of what stands at the door: listeners, server names, the PROXY protocol."""

from __future__ import annotations

from pathlib import Path

from edgeproxy import values as value
from edgeproxy.config.setting import Setting
from edgeproxy.listeners import spec as door

LISTENERS = (
    Setting(
        "EDGEPROXY_LISTENERS",
        "listeners.listen",
        "door.listeners",
        door.listeners,
        "several listeners instead of one: ADDRESS=APP, =tls:APP or =sni, with commas between",
    ),
    Setting(
        "EDGEPROXY_ROUTES",
        "listeners.routes",
        "door.routes",
        door.routes,
        "which app is meant by a server name (sni), such as www.example.com=web,*=other",
    ),
    Setting(
        "EDGEPROXY_PROXY_PROTOCOL_IN",
        "listeners.proxy_protocol_in",
        "door.proxy_in",
        value.networks,
        "networks of balancers, which have to begin with a PROXY header; unset: nobody does",
    ),
    Setting(
        "EDGEPROXY_PROXY_PROTOCOL_OUT",
        "listeners.proxy_protocol_out",
        "door.proxy_out",
        door.proxy_out,
        "what backends are told of clients: off, v1 or v2, for one app as APP=v2",
    ),
    Setting(
        "EDGEPROXY_BACKEND_TLS",
        "listeners.backend_tls",
        "door.backend_tls",
        door.backend_tls,
        "speak TLS with backends: the name in their certificate, for one app as APP=NAME",
    ),
    Setting(
        "EDGEPROXY_BACKEND_TLS_CA",
        "listeners.backend_tls_ca",
        "door.backend_ca",
        Path,
        "a PEM file of who has signed the certificates of backends; unset: the system's",
    ),
    Setting(
        "EDGEPROXY_PREAMBLE_TIMEOUT_SECS",
        "listeners.preamble_timeout_secs",
        "door.preamble_timeout_secs",
        value.interval,
        "how long a client may take for its PROXY header and its TLS server name",
    ),
)
