"""The settings of replication, and what contradicts itself in them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.host_name import host_name
from edgeproxy.values import BadValueError, ListenAddress, Secret

BUILTIN, CORROSION = "builtin", "corrosion"
ENGINES = (BUILTIN, CORROSION)
GOSSIP_PORT = 4001
TRANSPORT_PORT = 4002
NO_KEYS = Secret("")
DEFAULT_GOSSIP = ListenAddress("0.0.0.0", GOSSIP_PORT)  # noqa: S104 — as documented
DEFAULT_TRANSPORT = ListenAddress("0.0.0.0", TRANSPORT_PORT)  # noqa: S104 — as documented


class Peer(ListenAddress):
    """Where another POP may be found: its gossip address, or a name that may stand for several."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ReplicationSettings:
    """What makes the routing table the same on every POP.

    Attributes:
        enabled: Replicate the routing database.
        engine: `builtin`, or `corrosion`, which must be installed.
        node_id: The name of this POP, unlike that of any other; empty: the host name.
        gossip_addr: Where other POPs find out whether this one lives (UDP).
        transport_addr: Where they exchange changes (QUIC).
        bootstrap_peers: POPs to join through; none: this one waits for others.
        gossip_interval_ms: Time between two probes of other POPs.
        sync_interval_ms: Time between two comparisons with another POP.
        cluster_name: POPs of another name are strangers, even with the same key.
        db_path: The file in which the engine keeps its state.
        keys: The keys of the cluster; the first is used, the others are accepted.
        key_file: A file with these keys instead, one in a line.
        advertise_addr: The IP address at which others reach this POP; empty: where its datagrams
            come from.
        insecure: Do without a key although others can reach the addresses.
        corrosion_bin: The program of Corrosion.
        corrosion_tls_dir: The folder with the certificates of Corrosion; None: no TLS.
    """

    enabled: bool = False
    engine: str = BUILTIN
    node_id: str = ""
    gossip_addr: ListenAddress = DEFAULT_GOSSIP
    transport_addr: ListenAddress = DEFAULT_TRANSPORT
    bootstrap_peers: tuple[Peer, ...] = ()
    gossip_interval_ms: int = 1000
    sync_interval_ms: int = 5000
    cluster_name: str = "edgeproxy"
    db_path: Path = Path("state.db")
    keys: Secret = NO_KEYS
    key_file: Path | None = None
    advertise_addr: str = ""
    insecure: bool = False
    corrosion_bin: Path = Path("corrosion")
    corrosion_tls_dir: Path | None = None

    @property
    def has_keys(self) -> bool:
        """Whether the settings name keys."""
        return bool(self.keys) or self.key_file is not None


def peers(text: str) -> tuple[Peer, ...]:
    """Return POPs separated by commas, such as `10.50.0.1,pop-us.example:4001,[fd00::1]:4001`."""
    return tuple(_peer(part.strip()) for part in text.split(",") if part.strip())


def _peer(text: str) -> Peer:
    host, port = text, str(GOSSIP_PORT)
    if text.startswith("[") or text.count(":") == 1:
        host, _, port = text.rpartition(":") if not text.endswith("]") else (text, "", port)
    host = host.removeprefix("[").removesuffix("]")
    try:
        name: str | None = str(ipaddress.ip_address(host))
    except ValueError:
        name = host_name(host)
    is_port = port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535
    if not name or not is_port:
        raise BadValueError(
            f"{text!r} is no POP; allowed are addresses and host names with commas between, each "
            f"with a gossip port if that is not {GOSSIP_PORT}, such as pop-us.example:4001"
        )
    return Peer(name, int(port))


def faults_of(settings: ReplicationSettings, database: Path, *, uses_server: bool) -> list[str]:
    """Return what is missing or contradicts itself. `uses_server`: backends come from a server."""
    if not settings.enabled:
        return []
    is_builtin = settings.engine == BUILTIN
    faults = []
    if uses_server:
        faults.append(
            "EDGEPROXY_REPLICATION_ENABLED='true' and EDGEPROXY_POSTGRES_ENABLED='true': a "
            "PostgreSQL server is the same for all POPs as it is; unset one of them"
        )
    if settings.db_path.absolute() == database.absolute():
        faults.append(
            f"EDGEPROXY_REPLICATION_DB_PATH={str(settings.db_path)!r}: that is the routing "
            "database; name another file"
        )
    if settings.keys and settings.key_file is not None:
        faults.append(
            "EDGEPROXY_REPLICATION_KEYS and EDGEPROXY_REPLICATION_KEY_FILE are both set; set one"
        )
    return faults + (_faults_of_builtin(settings) if is_builtin else _faults_of_corrosion(settings))


def _faults_of_builtin(settings: ReplicationSettings) -> list[str]:
    faults = []
    for variable, address in (
        ("GOSSIP_ADDR", settings.gossip_addr),
        ("TRANSPORT_ADDR", settings.transport_addr),
    ):
        is_open = not ipaddress.ip_address(address.host).is_loopback
        if is_open and not settings.has_keys and not settings.insecure:
            faults.append(
                f"EDGEPROXY_REPLICATION_{variable}='{address}': without a key anybody who reaches "
                "it could change the routing table; make one with `edgeproxy cluster keygen`, set "
                "EDGEPROXY_REPLICATION_KEYS at every POP, or set EDGEPROXY_REPLICATION_INSECURE"
            )
    if settings.gossip_addr.port == settings.transport_addr.port != 0:
        faults.append(
            f"EDGEPROXY_REPLICATION_TRANSPORT_ADDR='{settings.transport_addr}': its port is that "
            "of EDGEPROXY_REPLICATION_GOSSIP_ADDR; both are UDP, so they need two"
        )
    return faults


def _faults_of_corrosion(settings: ReplicationSettings) -> list[str]:
    faults = []
    address = ipaddress.ip_address(settings.gossip_addr.host)
    listens = f"EDGEPROXY_REPLICATION_GOSSIP_ADDR='{settings.gossip_addr}'"
    if settings.has_keys:
        faults.append(
            "EDGEPROXY_REPLICATION_KEYS or EDGEPROXY_REPLICATION_KEY_FILE is set, and the engine "
            "is corrosion, which has certificates instead: unset it, and see "
            "EDGEPROXY_CORROSION_TLS_DIR"
        )
    if not address.is_loopback and settings.corrosion_tls_dir is None and not settings.insecure:
        faults.append(
            f"{listens}: without TLS anybody who reaches it could change the routing table; make "
            "certificates with `corrosion tls` and set EDGEPROXY_CORROSION_TLS_DIR at every POP, "
            "or set EDGEPROXY_REPLICATION_INSECURE, as between WireGuard addresses"
        )
    if address.is_unspecified and not settings.advertise_addr:
        faults.append(
            f"{listens}: Corrosion tells others where it listens: name the address at which they "
            "reach this POP, or set EDGEPROXY_REPLICATION_ADVERTISE_ADDR"
        )
    return faults
