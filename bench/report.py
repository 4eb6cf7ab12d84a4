"""Turns samples into tables: medians, ratios to one proxy in the same round, targets met or not.

A ratio is taken round by round, of two samples that were taken one after the other, and the
median of these is quoted with the least and the greatest. No absolute figure stands alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

REFERENCE = "haproxy"
DIRECT = "direct"
PLAIN = "edgeproxy"
ALL_GUARDS = f"{PLAIN}+all"
ALL_BUT_LOG = f"{PLAIN}+all-but-log"


@dataclass(frozen=True)
class Sample:
    """One sample: of which measure and proxy, in which round, and its figures by name."""

    measure: str
    subject: str
    round: int
    figures: dict[str, float]


@dataclass(frozen=True)
class Target:
    """What is aimed at.

    Attributes:
        measure: Where it is measured.
        figure: What is compared.
        subject: Whose figure.
        against: The proxy whose figure it is divided by, or "" for the figure itself.
        limit: How great it may be, or how small if `at_least`.
        about: In words.
        at_least: Whether more is better.
    """

    measure: str
    figure: str
    subject: str
    against: str
    limit: float
    about: str
    at_least: bool = False


def _targets() -> Iterable[Target]:
    for clients in (1, 64):
        name = f"connect-{clients}"
        about = f"CPU per new connection, {clients} at a time"
        yield Target(name, "cpu_us", "edgeproxy", "haproxy", 0.95, about)
        yield Target(name, "cpu_us", "portable", "haproxy", 1.7, f"{about}, portable engine")
    for connections in (1, 64, 1000):
        name = f"message-{connections}"
        about = f"CPU per message, {connections} connections"
        yield Target(name, "cpu_us", "edgeproxy", "haproxy", 0.9, about)
        yield Target(name, "cpu_us", "edgeproxy", "nginx", 0.95, about)
        yield Target(name, "cpu_us", "portable", "haproxy", 1.5, f"{about}, portable engine")
    about = "median latency, 1 connection"
    yield Target("message-1", "p50_us", "edgeproxy", "haproxy", 1.0, about)
    for way in ("upload", "download"):
        for streams in (1, 8):
            name, about = f"{way}-{streams}", f"CPU per GB, {way}, streams: {streams}"
            yield Target(name, "cpu_ms_per_gb", "edgeproxy", "haproxy", 0.35, about)
            yield Target(name, "cpu_ms_per_gb", "edgeproxy", "haproxy-splice", 1.1, about)
    for name, figure, about in (
        ("handshake-16", "cpu_us", "CPU per TLS handshake"),
        ("tlsmessage-64", "cpu_us", "CPU per message over TLS, 64 connections"),
        ("tlsdownload-1", "cpu_ms_per_gb", "CPU per GB over TLS, download"),
    ):
        yield Target(name, figure, "edgeproxy", "haproxy", 1.0, about)
    for count in (1000, 10_000):
        about = f"MB per 1,000 idle connections, of {count:,}"
        yield Target(f"idle-{count}", "mb_per_1000", "edgeproxy", "", 0.5, about)
    about = "p99 of messages beside bulk"
    yield Target("mixed", "p99_us", "edgeproxy", "haproxy", 1.0, about)
    about = "connections per second, 10,000 backends to 10"
    yield Target("backends", "ratio_10000", "edgeproxy", "", 0.95, about, at_least=True)
    yield Target("start", "ms", "edgeproxy", "", 100, "ms from exec to the first answer")
    about = "p99 of connecting, busy control plane to quiet"
    yield Target("busy", "connect_ratio", "edgeproxy", "", 3, about)
    about = "p99 of messages, busy control plane to quiet"
    yield Target("busy", "message_ratio", "edgeproxy", "", 1.1, about)
    for name, about in (
        ("connect-1", "CPU per new connection, 1 at a time"),
        ("connect-64", "CPU per new connection, 64 at a time"),
        ("message-64", "CPU per message, 64 connections"),
    ):
        for subject, which in ((ALL_GUARDS, "all guards on"), (ALL_BUT_LOG, "all but the log")):
            yield Target(name, "cpu_us", subject, PLAIN, 1.03, f"{about}, {which}")


TARGETS = tuple(_targets())

# What each table shows, and whether more is better.
_COLUMNS = {
    "connect": ("cpu_us", "per_sec", "p50_us", "p99_us"),
    "message": ("cpu_us", "per_sec", "p50_us", "p99_us"),
    "upload": ("cpu_ms_per_gb", "gb_per_sec"),
    "download": ("cpu_ms_per_gb", "gb_per_sec"),
    "handshake": ("cpu_us", "per_sec", "p50_us", "p99_us"),
    "tlsmessage": ("cpu_us", "per_sec", "p50_us", "p99_us"),
    "tlsdownload": ("cpu_ms_per_gb", "gb_per_sec"),
    "idle": ("mb_per_1000", "cpu_ms_per_sec", "connections"),
    "mixed": ("p99_us", "p50_us", "per_sec", "cpu_share"),
    "start": ("ms", "python_ms"),
    "threads": ("ratio", "cpu_us_1", "cpu_us_2"),
    "backends": ("ratio_1000", "ratio_10000", "per_sec_10"),
    "busy": ("connect_ratio", "message_ratio", "connect_p99_us_quiet", "connect_p99_us_busy"),
}


class Report:
    """The samples of a run, as tables, with ratios to the proxy named `reference`."""

    def __init__(self, samples: Sequence[Sample], reference: str = REFERENCE) -> None:
        self._reference = reference
        self._samples = samples
        self._figures = {(s.measure, s.subject, s.round): s.figures for s in samples}

    def median(self, measure: str, subject: str, figure: str) -> float | None:
        """Return the median over the rounds, or None if it was not measured."""
        values = [
            s.figures[figure] for s in self._samples if (s.measure, s.subject) == (measure, subject)
        ]
        return statistics.median(values) if values else None

    def ratios(self, measure: str, subject: str, figure: str, against: str) -> list[float]:
        """Return the ratio of each round that has both."""
        found = []
        for sample in self._samples:
            if (sample.measure, sample.subject) == (measure, subject):
                other = self._figures.get((measure, against, sample.round), {}).get(figure)
                if other:
                    found.append(sample.figures[figure] / other)
        return found

    def tables(self, abouts: dict[str, str]) -> str:
        """Return one table for each measure, in Markdown."""
        return "\n".join(
            self._table(measure, about)
            for measure, about in abouts.items()
            if any(sample.measure == measure for sample in self._samples)
        )

    def _table(self, measure: str, about: str) -> str:
        columns = _COLUMNS[measure.split("-", maxsplit=1)[0]]
        subjects = list(dict.fromkeys(s.subject for s in self._samples if s.measure == measure))
        main = columns[0]
        header = ["proxy", f"{main} / {self._reference}", "min-max", *columns]
        lines = [f"**{measure}**: {about}", "", _row(header), _row(["---"] * len(header))]
        for subject in subjects:
            against = "" if subject == DIRECT else self._reference
            ratios = self.ratios(measure, subject, main, against)
            cells = [subject]
            cells += [f"{statistics.median(ratios):.2f}" if ratios else "", _range(ratios)]
            cells += [self._cell(measure, subject, column) for column in columns]
            lines.append(_row(cells))
        return "\n".join([*lines, ""])

    def _cell(self, measure: str, subject: str, column: str) -> str:
        """Return a figure; latencies are followed by what the proxy adds to them."""
        if subject == DIRECT and column.startswith("cpu"):
            return ""
        value = self.median(measure, subject, column)
        latency = column.startswith("p") and column.endswith("_us")
        direct = self.median(measure, DIRECT, column) if latency else None
        if value is None or not direct or subject == DIRECT:
            return _text(value)
        return f"{_text(value)} (+{_text(value - direct)})"

    def targets(self) -> str:
        """Return what was aimed at beside what was measured, in Markdown."""
        lines = [_row(["target", "against", "limit", "measured", "min-max", "met"])]
        lines.append(_row(["---"] * 6))
        for target in TARGETS:
            values = self._values(target)
            if not values:
                continue
            value = statistics.median(values)
            met = value >= target.limit if target.at_least else value <= target.limit
            limit = f"{'≥' if target.at_least else '≤'} {target.limit:g}"
            against = target.against or "-"
            verdict = "yes" if met else "**no**"
            lines.append(
                _row([target.about, against, limit, _text(value), _range(values), verdict])
            )
        return "\n".join([*lines, ""])

    def _values(self, target: Target) -> list[float]:
        measure, subject, figure = target.measure, target.subject, target.figure
        if target.against:
            return self.ratios(measure, subject, figure, target.against)
        return [
            s.figures[figure] for s in self._samples if (s.measure, s.subject) == (measure, subject)
        ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(values: Sequence[float]) -> str:
    return f"{_text(min(values))}-{_text(max(values))}" if values else ""


def _text(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
