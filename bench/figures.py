"""Where samples are taken, and the figures that follow from what load and processor time show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import load

Figures = dict[str, float]
"""The figures of one sample, by name."""


@dataclass(frozen=True)
class Bench:
    """Where and for how long samples are taken.

    Attributes:
        proxy_cpus: Those of the proxy.
        load_cpus: Those of load and backends.
        folder: For files.
        secs: How long one sample takes.
    """

    proxy_cpus: set[int]
    load_cpus: set[int]
    folder: Path
    secs: float

    @property
    def all_cpus(self) -> set[int]:
        """Both, for what needs two."""
        return self.proxy_cpus | self.load_cpus

    def exchange(
        self,
        port: int,
        connections: int,
        *,
        close: bool,
        secs: float | None = None,
        tls: bool = False,
    ) -> load.Answered:
        """Exchange small messages for so long, by default for one sample."""
        return load.small(
            port,
            self.load_cpus,
            self.folder,
            connections=connections,
            secs=self.secs if secs is None else secs,
            close=close,
            tls=tls,
        )


def message_figures(seen: load.Answered, spent_secs: float) -> Figures:
    """Return the figures of small messages that took the proxy so much processor time."""
    return {
        "per_sec": seen.requests / seen.secs,
        "cpu_us": spent_secs / seen.requests * 1e6,
        "p50_us": seen.p50_us,
        "p99_us": seen.p99_us,
    }


def bulk_figures(carried: load.Carried, spent_secs: float) -> Figures:
    """Return the figures of bulk that took the proxy so much processor time."""
    return {
        "gb_per_sec": carried.gigabytes / carried.secs,
        "cpu_ms_per_gb": spent_secs / carried.gigabytes * 1e3,
    }
