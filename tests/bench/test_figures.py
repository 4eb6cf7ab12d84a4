"""Figures are per second, per message and per gigabyte."""

from __future__ import annotations

from bench.figures import bulk_figures, message_figures
from bench.load import Answered, Carried


def test_messages_are_counted_per_second_and_cost_processor_time_each() -> None:
    figures = message_figures(Answered(requests=500, secs=2.0, p50_us=30, p99_us=90), 0.001)
    assert figures == {"per_sec": 250, "cpu_us": 2, "p50_us": 30, "p99_us": 90}


def test_bulk_costs_processor_time_per_gigabyte() -> None:
    figures = bulk_figures(Carried(gigabytes=4.0, secs=2.0), spent_secs=0.2)
    assert figures == {"gb_per_sec": 2, "cpu_ms_per_gb": 50}
