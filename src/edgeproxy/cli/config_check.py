"""Finds what would keep a proxy from starting, all of it at once, and changes nothing.

Where a value is at fault, what depends on it is not looked at yet, and that is said.
Files are read as the proxy reads them; addresses are bound for a moment, but nobody can connect.
Where a proxy that runs already may hold an address, that is a warning.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

from edgeproxy.errors import EdgeProxyError, UsageError

if TYPE_CHECKING:
    from edgeproxy.config.load import Config, Loaded
    from edgeproxy.listeners.opening import Address

OFF = "off"
LISTENING = {"proxy", "listeners", "tls", "metrics", "api"}
"""The parts of `Config` that say where to listen."""


@dataclass(slots=True)
class Findings:
    """What a check has found.

    Attributes:
        faults: What would end the start.
        warnings: What would not, but is odd.
        is_usage: Whether a value is at fault, and not only a file or an address.
        unchecked: What was not looked at, because values that it depends on are at fault.
        given: Number of settings that are not defaults.
        settings: Number of all settings.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    is_usage: bool = False
    unchecked: list[str] = field(default_factory=list)
    given: int = 0
    settings: int = 0


def check(environ: Mapping[str, str]) -> Findings:
    """Return what is wrong with the configuration of this environment."""
    from edgeproxy.config import load as config

    loaded, faults, unsure = config.examine(environ)
    found = Findings([*faults], [*loaded.warnings], is_usage=bool(faults))
    found.given = sum(setting.source != "default" for setting in loaded.effective)
    found.settings = len(loaded.effective)
    for what, checks, parts in (
        ("geo files", _geo, {"geo"}),
        ("the token", _token, {"api"}),
        ("certificates", _tls, {"tls", "listeners"}),
        ("the driver for PostgreSQL", _driver, {"postgres"}),
        ("the engine", _engine, {"engine"}),
        ("the access log and Unix sockets", _files, LISTENING),
        ("the keys of the cluster", _cluster, {"replication"}),
        ("the routing database", _database, {"database", "postgres"}),
    ):
        if parts & unsure:
            found.unchecked.append(what)
            continue
        for each in checks(loaded.config):
            try:
                each()
            except EdgeProxyError as error:
                found.is_usage |= isinstance(error, UsageError)
                if str(error) not in found.faults:
                    found.faults.append(str(error))
    if not {"tls", "listeners"} & unsure and _is_self_signed(loaded.config):
        found.warnings.append(
            "no certificate is set, so a self-signed one is made, which no client trusts: set "
            "EDGEPROXY_TLS_CERT and EDGEPROXY_TLS_KEY, or EDGEPROXY_TLS_CERT_DIR"
        )
    if not {"database", "postgres"} & unsure:
        found.warnings += _overlays_of_nobody(loaded)
    if LISTENING & unsure:
        found.unchecked.append("addresses")
    else:
        _check_addresses(loaded.config, found)
    return found


_Checks = Iterator[Callable[[], object]]
"""Each raises EdgeProxyError if something is wrong."""


def _geo(config: Config) -> _Checks:
    from edgeproxy.control.geoip import Geo

    yield lambda: Geo(replace(config.geo, overrides=None))
    if config.geo.overrides is not None:
        yield lambda: Geo(replace(config.geo, database=None))


def _token(config: Config) -> _Checks:
    from edgeproxy.api.settings import token_of

    if config.api.enabled:
        yield lambda: token_of(config.api)


def _cluster(config: Config) -> _Checks:
    if config.replication.enabled:
        from edgeproxy.cluster.builtin.ring import Ring
        from edgeproxy.cluster.identity import check_node_id

        yield lambda: Ring(config.replication)
        yield lambda: check_node_id(config.replication.node_id or gethostname())


def _tls(config: Config) -> _Checks:
    from edgeproxy.tls import pem
    from edgeproxy.tls.authorities import backend_authorities
    from edgeproxy.tls.certificates import Certificates

    tls = config.tls
    if config.listen_settings().speaks_tls:
        # The whole says whether a proxy would start; each part, what else is wrong if it would not.
        try:
            Certificates(tls).load()
        except EdgeProxyError:
            yield Certificates(replace(tls, cert_dir=None, client_ca=None)).load
            if tls.cert_dir is not None and (not tls.cert or _holds_files(tls.cert_dir)):
                yield Certificates(replace(tls, cert=None, key=None, client_ca=None)).load
            if (ca := tls.client_ca) is not None:
                yield lambda: pem.authorities(ca, pem.read(ca))
            yield Certificates(tls).load
    if config.listeners.backend_tls:
        yield lambda: backend_authorities(config.listeners.backend_tls_ca)


def _is_self_signed(config: Config) -> bool:
    tls = config.tls
    return config.listen_settings().speaks_tls and not (tls.cert or tls.key or tls.cert_dir)


def _holds_files(folder: Path) -> bool:
    try:
        return bool(os.listdir(folder))
    except OSError:
        return True  # the check says why


def _driver(config: Config) -> _Checks:
    from edgeproxy.store.choice import check_driver

    if config.postgres.enabled:
        yield check_driver


def _engine(config: Config) -> _Checks:
    from edgeproxy.engine.choice import best_kind

    def is_built() -> None:
        if config.engine.kind == "native" and best_kind() != "native":
            raise UsageError(
                "EDGEPROXY_ENGINE='native': this installation has no native engine; install it on "
                "a host with a C compiler to build one, or use `portable` or `auto`"
            )

    yield is_built


def _files(config: Config) -> _Checks:
    log, control = config.proxy.access_log, config.proxy.control_socket
    if log not in (OFF, "-"):
        yield lambda: _writable("EDGEPROXY_ACCESS_LOG", Path(log))
    if control not in ("", OFF):
        yield lambda: _free("EDGEPROXY_CONTROL_SOCKET", Path(control), makes_folder=True)
    for address in _addresses(config).values():
        if path := getattr(address, "path", None):
            yield partial(_free, "EDGEPROXY_LISTENERS", Path(path))


def _database(config: Config) -> _Checks:
    from edgeproxy.store.choice import make_store
    from edgeproxy.store.sqlite.database import TableMissingError

    def can_be_read() -> None:
        path = config.database.path
        if not os.path.lexists(path):
            _writable("EDGEPROXY_DB_PATH", path)
            return
        store = make_store(config.database, config.postgres)
        try:
            store.read()
        except TableMissingError:
            pass  # a proxy starts, and waits for the table
        finally:
            store.close()

    if not config.postgres.enabled:  # a server may come back, and is waited for
        yield can_be_read


def _overlays_of_nobody(loaded: Loaded) -> list[str]:
    """Return a warning for each section of a backend that the routing database does not have."""
    from edgeproxy.config.file import nearest
    from edgeproxy.store.choice import make_store

    config = loaded.config
    if not loaded.overlays or config.postgres.enabled:
        return []
    store = make_store(config.database, config.postgres)
    try:
        ids = [backend.id for backend in store.read().backends]
    except EdgeProxyError:
        return []  # that it cannot be read is said elsewhere
    finally:
        store.close()
    return [
        f"[backends.{json.dumps(name)}] has no effect: {config.database.path} has no such backend"
        f"{nearest(name, ids)}"
        for name in loaded.overlays
        if name not in ids
    ]


def _writable(variable: str, path: Path) -> None:
    """Raise EdgeProxyError unless this file can be written, or made."""
    if path.is_dir():
        raise _bad(variable, path, "is a directory; name a file")
    if not os.path.lexists(path):
        _check_folder(variable, path, path.absolute().parent)
    elif not os.access(path, os.W_OK, effective_ids=True):
        raise _bad(variable, path, "may not be written by this user")


def _free(variable: str, path: Path, *, makes_folder: bool = False) -> None:
    """Raise EdgeProxyError unless a Unix socket can be made at this path."""
    if path.exists() and not path.is_socket():
        raise _bad(variable, path, "is another file, which is not replaced; name another path")
    folder = path.absolute().parent
    if makes_folder and not os.path.lexists(folder):
        folder = folder.parent
    _check_folder(variable, path, folder)


def _check_folder(variable: str, path: Path, folder: Path) -> None:
    """Raise EdgeProxyError unless files can be made in this folder."""
    if not folder.exists():
        raise _bad(variable, path, f"cannot be made: there is no folder {folder}; make it")
    if not folder.is_dir():
        raise _bad(variable, path, f"cannot be made: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise _bad(variable, path, f"cannot be made: this user may not write to {folder}")


def _bad(variable: str, path: Path, reason: str) -> EdgeProxyError:
    return EdgeProxyError(f"{variable}={str(path)!r}: {reason}")


# -- addresses ------------------------------------------------------------------------------


def _check_addresses(config: Config, found: Findings) -> None:
    """Add the addresses that cannot be listened on, or that are wanted twice."""
    from edgeproxy.listeners.opening import cannot_listen
    from edgeproxy.values import ListenAddress

    seen: list[tuple[str, ListenAddress]] = []
    for variables, address in _addresses(config).items():
        if not isinstance(address, ListenAddress):
            continue
        twin = next((name for name, other in seen if _meet(address, other)), None)
        if twin is not None:
            found.faults.append(f"{address} is wanted by both {twin} and {variables}")
        seen.append((variables, address))
        error = _bind_error(address)
        if error is None:
            continue
        fault = str(cannot_listen(address, error, variables))
        if error.errno == errno.EADDRINUSE and _may_be_running(config):
            found.warnings.append(f"{fault}; that is as it should be if this proxy runs already")
        else:
            found.faults.append(fault)


def _addresses(config: Config) -> dict[str, Address]:
    """Return every address to listen on, by the variables that set it."""
    listen = config.listen_settings().listen
    names = ["EDGEPROXY_LISTENERS"] * len(config.listeners.listen) or ["EDGEPROXY_LISTEN_ADDR"]
    names += ["EDGEPROXY_TLS_LISTEN_ADDR"] * (len(listen) - len(names))
    addresses = {
        f"{name} ({each})" if names.count(name) > 1 else name: each.address
        for name, each in zip(names, listen, strict=True)
    }
    if config.metrics.enabled:
        addresses["EDGEPROXY_METRICS_LISTEN_ADDR"] = config.metrics.listen_addr
    if config.api.enabled:
        addresses["EDGEPROXY_API_LISTEN_ADDR"] = config.api.listen_addr
    return addresses


def _meet(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Return whether no two sockets can listen on these addresses at once."""
    hosts = {one[0], other[0]}
    return one[1] == other[1] != 0 and (len(hosts) == 1 or not hosts.isdisjoint({"0.0.0.0", "::"}))  # noqa: S104


def _bind_error(address: tuple[str, int]) -> OSError | None:
    """Return why this address cannot be bound, or None. Nobody can connect meanwhile."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind((address[0], address[1]))
    except OSError as error:
        return error
    return None


def _may_be_running(config: Config) -> bool:
    """Return whether a proxy answers on the control socket, or none can be asked."""
    from edgeproxy.control.admin.socket_path import default_paths

    control = config.proxy.control_socket
    if control == OFF:
        return True
    paths: Iterable[Path] = [Path(control)] if control else default_paths(os.environ)
    for path in paths:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
            except OSError:
                pass  # perhaps that of another user
            return True
    return False
