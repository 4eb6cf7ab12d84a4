"""Ratios are taken within a round, and targets are told as they were measured."""

from __future__ import annotations

import pytest

from bench.report import Report, Sample

FIGURES = {"cpu_us": 0.0, "per_sec": 1.0, "p50_us": 100.0, "p99_us": 300.0}


def _samples(*cpu_us: tuple[str, int, float]) -> list[Sample]:
    return [
        Sample("connect-1", subject, number, {**FIGURES, "cpu_us": value})
        for subject, number, value in cpu_us
    ]


def test_a_ratio_is_of_two_samples_of_one_round() -> None:
    report = Report(
        _samples(
            ("edgeproxy", 0, 10),
            ("haproxy", 0, 20),
            ("edgeproxy", 1, 90),
            ("haproxy", 1, 100),
            ("edgeproxy", 2, 5),  # and nothing to compare it with
        )
    )
    assert report.ratios("connect-1", "edgeproxy", "cpu_us", "haproxy") == [0.5, 0.9]
    assert report.median("connect-1", "edgeproxy", "cpu_us") == 10
    assert report.median("connect-1", "nginx", "cpu_us") is None


@pytest.mark.parametrize(("ours", "verdict"), [(94, "| yes |"), (96, "| **no** |")])
def test_a_target_is_met_or_not(ours: float, verdict: str) -> None:
    report = Report(_samples(("edgeproxy", 0, ours), ("haproxy", 0, 100)))
    (line,) = (line for line in report.targets().splitlines() if "CPU per new" in line)
    assert line.endswith(verdict)
    assert "≤ 0.95" in line


def test_what_was_not_measured_is_not_told() -> None:
    report = Report(_samples(("edgeproxy", 0, 94)))
    assert "CPU per new" not in report.targets()
    assert "nginx" not in report.tables({"connect-1": "one at a time", "idle-1000": "memory"})
    assert "idle" not in report.tables({"connect-1": "one at a time", "idle-1000": "memory"})


def test_latencies_are_followed_by_what_the_proxy_adds() -> None:
    direct = Sample("connect-1", "direct", 0, {**FIGURES, "p50_us": 30})
    report = Report([*_samples(("haproxy", 0, 94)), direct])
    lines = report.tables({"connect-1": "one at a time"}).splitlines()
    assert any("100.0 (+70.0)" in line for line in lines if line.startswith("| haproxy"))


def test_what_guards_cost_is_told_beside_none() -> None:
    samples = _samples(("edgeproxy", 0, 100), ("edgeproxy+all", 0, 102), ("edgeproxy+rate", 0, 101))
    report = Report(samples, "edgeproxy")
    (line,) = (line for line in report.targets().splitlines() if "all guards on" in line)
    assert line.startswith(
        "| CPU per new connection, 1 at a time, all guards on | edgeproxy | ≤ 1.03"
    )
    assert line.endswith("| yes |")
    table = report.tables({"connect-1": "one at a time"})
    assert "| proxy | cpu_us / edgeproxy |" in table
    assert "| edgeproxy+rate | 1.01 |" in table
