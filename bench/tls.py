"""What TLS costs: handshakes, small messages and bulk to clients, beside peers that end it too.

Every proxy has the same ECDSA certificate on P-256, and the ciphers and groups of its own defaults;
wrk takes TLS 1.3. Each request of `handshake-16` is a handshake, without resumption.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from bench import load
from bench.figures import Bench, Figures, bulk_figures, message_figures
from bench.subjects import Subject

PEERS = ("edgeproxy", "portable", "haproxy", "nginx")
WARM_UP_SECS = 1.0


def exchanged(connections: int, *, close: bool) -> Callable[[Bench, Subject], Figures]:
    """Return a sample of small messages."""

    def sample(bench: Bench, subject: Subject) -> Figures:
        with (
            load.small_backend(bench.load_cpus, bench.folder) as backend,
            subject.running(
                backend, bench.proxy_cpus, bench.folder, tls=certificate(bench.folder)
            ) as (process, port),
        ):
            bench.exchange(port, connections, close=close, secs=WARM_UP_SECS, tls=True)
            spent_secs = process.cpu_secs()
            seen = bench.exchange(port, connections, close=close, tls=True)
            spent_secs = process.cpu_secs() - spent_secs
        return message_figures(seen, spent_secs)

    return sample


def downloaded(bench: Bench, subject: Subject) -> Figures:
    """Sample bulk to one client."""
    with (
        load.small_backend(bench.load_cpus, bench.folder) as backend,
        subject.running(backend, bench.proxy_cpus, bench.folder, tls=certificate(bench.folder)) as (
            process,
            port,
        ),
    ):
        spent_secs = process.cpu_secs()
        seen = load.small(
            port,
            bench.load_cpus,
            bench.folder,
            connections=1,
            secs=bench.secs,
            path=load.BULK_PATH,
            tls=True,
        )
        spent_secs = process.cpu_secs() - spent_secs
    carried = load.Carried(seen.requests * load.BULK_BYTES / 1e9, seen.secs)
    return bulk_figures(carried, spent_secs)


def certificate(folder: Path) -> Path:
    """Return a file with a certificate and its key, made once."""
    file = folder / "tls.pem"
    if not file.exists():
        key, chain = folder / "tls.key", folder / "tls.crt"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        subprocess.run(
            ["openssl", "req", "-x509", *curve, "-keyout", key, "-out", chain, *names],
            check=True,
            capture_output=True,
        )
        file.write_text(chain.read_text() + key.read_text())
    return file
