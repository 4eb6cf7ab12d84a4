"""Where load comes from: wrk for connections and small messages, iperf3 for bulk.

Backends are nginx, which answers a small message with a small one, and iperf3. What neither
can do, connections that stay idle or that open at a steady rate, is in `bench.clients`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.process import Process, pause, pinned
from tests.ports import free_port

STREAM_PATH = "/stream"
BULK_PATH = "/bulk"
STREAM_BYTES_PER_SEC = 100_000_000
BULK_BYTES = 32 << 20
BUSY_SECS = 5.0

_NGINX = """\
daemon off;
master_process off;
pid {folder}/backend.pid;
error_log stderr crit;
events {{ worker_connections 18000; }}
http {{
    access_log off;
    server_tokens off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    sendfile on;
    types {{}}
    default_type "";
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 0.0.0.0:{port} backlog=4096;
        root {folder};
        location = / {{ return 204; }}
        location = /bulk {{ alias {folder}/bulk; }}
        location = /stream {{ limit_rate {stream_bytes_per_sec}; alias {folder}/bulk; }}
    }}
}}
"""

# A request of 64 bytes: wrk writes the first line, and ends each.
_PADDING = ("-H", "Host: b", "-H", "X: " + "x" * 32)

_SUMMARY = """\
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '\\nJSON {"requests": %d, "micros": %d, "errors": %d, "p50_us": %d, "p99_us": %d}\\n',
        summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Answered:
    """What wrk saw.

    Attributes:
        requests: How many were answered.
        secs: In how long.
        p50_us: The median time to an answer, in microseconds.
        p99_us: What one in a hundred exceeded.
    """

    requests: int
    secs: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Carried:
    """What iperf3 received: gigabytes, in so many seconds."""

    gigabytes: float
    secs: float


def missing_tools() -> dict[str, str]:
    """Return the tools that are not here, with what to do to have them."""
    wanted = {
        "wrk": "apt-get install wrk",
        "iperf3": "apt-get install iperf3",
        "nginx": "apt-get install nginx",
    }
    return {name: hint for name, hint in wanted.items() if not shutil.which(name)}


@contextmanager
def small_backend(cpus: set[int], folder: Path) -> Iterator[int]:
    """Run a backend that answers small messages, and `STREAM_PATH` with a stream of bytes."""
    port = free_port()
    config = folder / "backend.conf"
    config.write_text(
        _NGINX.format(folder=folder, port=port, stream_bytes_per_sec=STREAM_BYTES_PER_SEC)
    )
    with (folder / "bulk").open("wb") as file:
        file.truncate(BULK_BYTES)
    argv = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(config)]
    with Process(argv, cpus, folder / "backend.log") as process:
        process.wait_until_it_accepts(port)
        yield port


@contextmanager
def bulk_backend(cpus: set[int], folder: Path) -> Iterator[int]:
    """Run a backend for `bulk`."""
    port = free_port()
    argv = ["iperf3", "--server", "--port", str(port)]
    with Process(argv, cpus, folder / "iperf3.log") as process:
        process.wait_until_it_accepts(port)
        yield port


def _wrk(
    port: int, path: str, connections: int, *options: str, close: bool, tls: bool = False
) -> list[str]:
    argv = ["wrk", "-t", "1", "--timeout", "30", "-c", str(connections), *options, *_PADDING]
    if close:
        argv += ["-H", "Connection: close"]
    return [*argv, f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}"]


def small(
    port: int,
    cpus: set[int],
    folder: Path,
    *,
    connections: int,
    secs: float,
    close: bool = False,
    path: str = "/",
    tls: bool = False,
) -> Answered:
    """Exchange small messages; with `close`, each on a connection of its own.

    With `tls` that is a handshake each, without resumption.

    Raises RuntimeError if one is not answered.
    """
    script = folder / "summary.lua"
    if not script.exists():
        script.write_text(_SUMMARY)
    lasting = ("-d", f"{max(1, round(secs))}s", "-s", str(script))
    ran = subprocess.run(
        pinned(_wrk(port, path, connections, *lasting, close=close, tls=tls), cpus),
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in ran.stdout.splitlines() if line.startswith("JSON "))
    found = json.loads(line.removeprefix("JSON "))
    if found["errors"] or not found["requests"]:
        raise RuntimeError(f"{found['errors']} requests were not answered:\n{ran.stdout}")
    return Answered(
        found["requests"],
        found["micros"] / 1e6,
        found["p50_us"],
        found["p99_us"],
    )


@contextmanager
def endless(
    port: int, cpus: set[int], folder: Path, *, connections: int, close: bool
) -> Iterator[Callable[[], str]]:
    """Exchange small messages meanwhile. Gives what returns, afterwards, what wrk has said."""
    said = folder / "wrk.log"
    with Process(_wrk(port, "/", connections, "-d", "1h", close=close), cpus, said) as process:
        yield said.read_text
        process.signal(signal.SIGINT)
        process.wait()


def bulk(port: int, cpus: set[int], *, streams: int, secs: float, download: bool) -> Carried:
    """Send bytes as fast as they are taken.

    Raises RuntimeError if they do not arrive.
    """
    argv = ["iperf3", "--json", "--client", "127.0.0.1"]
    argv += ["--port", str(port), "--parallel", str(streams), "--time", str(max(1, round(secs)))]
    if download:
        argv.append("--reverse")
    deadline = time.monotonic() + BUSY_SECS
    while True:
        ran = subprocess.run(pinned(argv, cpus), capture_output=True, text=True, check=False)
        found = json.loads(ran.stdout)
        if "error" not in found:
            received = found["end"]["sum_received"]
            return Carried(received["bytes"] / 1e9, received["seconds"])
        # The server serves one client at a time: it may still be with the one who asked
        # whether the proxy accepts.
        if time.monotonic() > deadline:
            raise RuntimeError(f"iperf3: {found['error']}")
        pause()
