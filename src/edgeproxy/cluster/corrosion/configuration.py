"""What Corrosion is told: its configuration and its tables.

The tables are those of `core/cluster/rows`, as Corrosion wants them: a primary key that is never
NULL. No column has a type, so a value arrives as it was. Nothing here may ever remove a tombstone
(`reaper`): it forbids using an id again, and backends do so.
"""

from __future__ import annotations

import ipaddress
import json
import zlib
from pathlib import Path
from typing import NamedTuple

from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.core.cluster.rows import TABLES
from edgeproxy.values import ListenAddress

POPS = "edgeproxy_pops"
"""The name and region behind each actor of Corrosion; a row is written by its POP alone."""
CACHE_KIB = 64 << 10
TLS_FILES = (
    "ca_cert.pem",
    "server_cert.pem",
    "server_key.pem",
    "client_cert.pem",
    "client_key.pem",
)


class Place(NamedTuple):
    """Where Corrosion keeps what it needs, and where it listens for this POP.

    Attributes:
        folder: What was written for it, and its admin socket.
        port: The TCP port of its API on loopback.
        secret: What its API wants to hear from a caller.
    """

    folder: Path
    port: int
    secret: str

    @property
    def configuration(self) -> Path:
        """The configuration file."""
        return self.folder / "config.toml"

    @property
    def schema(self) -> Path:
        """The file with the tables."""
        return self.folder / "schema.sql"

    @property
    def admin_socket(self) -> Path:
        """The Unix socket for questions about the cluster."""
        return self.folder / "admin"


def folder_of(db_path: Path) -> Path:
    """Return the folder beside a state in which the files for Corrosion are."""
    return db_path.absolute().with_name(f"{db_path.name}-corrosion")


def schema_text() -> str:
    """Return the tables, for a schema file of Corrosion."""
    statements = []
    for name, table in TABLES.items():
        keys = [f"{key} TEXT NOT NULL" for key in table.keys]
        primary = f"PRIMARY KEY ({', '.join(table.keys)})"
        listed = ", ".join([*keys, *table.columns, primary])
        statements.append(f"CREATE TABLE {name} ({listed});")
    statements.append(
        f"CREATE TABLE {POPS} (actor_id TEXT NOT NULL PRIMARY KEY, node_id TEXT, region TEXT);"
    )
    return "\n".join([*statements, ""])


def cluster_id_of(cluster_name: str) -> int:
    """Return the number by which Corrosion tells clusters apart. Zero is that of no name."""
    return zlib.crc32(cluster_name.encode()) % 0xFFFF + 1


def sync_secs_of(settings: ReplicationSettings) -> int:
    """Return the longest time between two comparisons, in the whole seconds of Corrosion."""
    return max(1, settings.sync_interval_ms // 1000)


def configuration_text(settings: ReplicationSettings, place: Place) -> str:
    """Return the configuration file."""
    host, port = settings.gossip_addr
    is_v6 = ipaddress.ip_address(host).version == 6
    client = f"[{host}]:0" if is_v6 else f"{host}:0"
    advertised = settings.advertise_addr
    external = ListenAddress(advertised, port) if advertised else None
    tls = settings.corrosion_tls_dir
    lines = [
        "[db]",
        f"path = {_quoted(settings.db_path.absolute())}",
        f"schema_paths = [{_quoted(place.schema)}]",
        f"cache_size_kib = -{CACHE_KIB}",
        "[gossip]",
        f"addr = {_quoted(settings.gossip_addr)}",
        *([f"external_addr = {_quoted(external)}"] if external else []),
        f"client_addr = {_quoted(client)}",
        f"bootstrap = [{', '.join(map(_quoted, settings.bootstrap_peers))}]",
        f"plaintext = {'true' if tls is None else 'false'}",
        *([] if tls is None else _tls_lines(tls.absolute())),
        "[api]",
        f'addr = "127.0.0.1:{place.port}"',
        f"authz.bearer-token = {_quoted(place.secret)}",
        "[admin]",
        f"path = {_quoted(place.admin_socket)}",
        "[log]",
        'format = "json"',
        "colors = false",
        "[perf]",
        f"max_sync_backoff = {sync_secs_of(settings)}",
        "",
    ]
    return "\n".join(lines)


def _tls_lines(folder: Path) -> list[str]:
    authority, server, server_key, client, client_key = (folder / name for name in TLS_FILES)
    return [
        "[gossip.tls]",
        f"ca_file = {_quoted(authority)}",
        f"cert_file = {_quoted(server)}",
        f"key_file = {_quoted(server_key)}",
        "[gossip.tls.client]",
        f"cert_file = {_quoted(client)}",
        f"key_file = {_quoted(client_key)}",
    ]


def _quoted(value: object) -> str:
    """Return a string of TOML, which has the escapes of JSON."""
    return json.dumps(str(value))
