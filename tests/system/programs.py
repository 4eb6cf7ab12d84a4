"""Real haproxy and nginx in front of a proxy or behind it; a test without them is skipped."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.waiting import wait_until

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

Address = tuple[str, int]


class Program:
    """A process that serves at `address`; its output is in `log`."""

    def __init__(self, command: list[str], log: Path, address: Address) -> None:
        self.id = Path(command[0]).name
        self.host, self.port = self.address = address
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_until(self._serves, f"{self.id} to serve: {log}")

    def _serves(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as probe:
            return probe.connect_ex(self.address) == 0

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def haproxy(folder: Path, text: str, host: str = "127.0.0.1") -> Program:
    """Run haproxy in one process; LISTEN in its configuration becomes an address."""
    path = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        pytest.skip("haproxy is not installed: ./task packages")
    address = (host, free_port())
    config = folder / f"haproxy-{address[1]}.cfg"
    defaults = "timeout connect 10s\n  timeout client 20s\n  timeout server 20s"
    text = text.replace("LISTEN", f"{host}:{address[1]}")
    config.write_text(f"defaults\n  {defaults}\n{text}\n")
    return Program([path, "-db", "-f", str(config)], folder / f"{config.stem}.log", address)


def nginx(folder: Path, text: str, host: str = "127.0.0.1") -> Program:
    """Run nginx in one process with this stream configuration; LISTEN as above."""
    path = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None or not STREAM_MODULE.exists():
        pytest.skip("nginx with its stream module is not installed: ./task packages")
    address = (host, free_port())
    config = folder / f"nginx-{address[1]}.conf"
    shown = f"[{host}]" if ":" in host else host
    config.write_text(
        f"load_module {STREAM_MODULE};\n"
        f"daemon off; master_process off; pid {config}.pid; error_log stderr notice;\n"
        f"events {{}}\nstream {{ {text.replace('LISTEN', f'{shown}:{address[1]}')} }}\n"
    )
    return Program([path, "-c", str(config)], folder / f"{config.stem}.log", address)
