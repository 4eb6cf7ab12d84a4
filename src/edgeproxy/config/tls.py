"""The settings of the door: how clients are met, beside plain TCP."""

from __future__ import annotations

from pathlib import Path

from edgeproxy import values as value
from edgeproxy.config.setting import Setting

DOOR = (
    Setting(
        "EDGEPROXY_TLS_ENABLED",
        "tls.enabled",
        "tls.enabled",
        value.boolean,
        "accept clients over TLS too",
    ),
    Setting(
        "EDGEPROXY_TLS_LISTEN_ADDR",
        "tls.listen_addr",
        "tls.listen",
        value.listen_address,
        "where they are accepted",
    ),
    Setting(
        "EDGEPROXY_TLS_CERT",
        "tls.cert",
        "tls.cert",
        Path,
        "a PEM file: the certificate, then those that vouch for it; unset: self-signed",
    ),
    Setting(
        "EDGEPROXY_TLS_KEY",
        "tls.key",
        "tls.key",
        Path,
        "a PEM file with its private key, without a passphrase",
    ),
    Setting(
        "EDGEPROXY_TLS_CERT_DIR",
        "tls.cert_dir",
        "tls.cert_dir",
        Path,
        "a directory of NAME.crt and NAME.key, or both in NAME.pem; clients ask by server name",
    ),
    Setting(
        "EDGEPROXY_TLS_CLIENT_CA",
        "tls.client_ca",
        "tls.client_ca",
        Path,
        "a PEM file of authorities; clients have to show a certificate of one of them",
    ),
    Setting(
        "EDGEPROXY_TLS_ALPN",
        "tls.alpn",
        "tls.alpn",
        value.protocols,
        "protocols that are offered by ALPN, the best first, with commas between; unset: none",
    ),
    Setting(
        "EDGEPROXY_TLS_HANDSHAKE_TIMEOUT_SECS",
        "tls.handshake_timeout_secs",
        "tls.handshake_timeout_secs",
        value.interval,
        "how long a client may take for the TLS handshake",
    ),
)
