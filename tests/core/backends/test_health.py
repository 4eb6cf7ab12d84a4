"""Results become a verdict with hysteresis; a backend that comes up may come slowly."""

from __future__ import annotations

import pytest

from edgeproxy.core.backends.health import HealthSettings, Verdict

SETTINGS = HealthSettings(healthy_threshold=2, unhealthy_threshold=3)


def hear(verdict: Verdict, results: str) -> str:
    """Let it hear + and -; return what it said after each."""
    said = ""
    for number, result in enumerate(results, start=1):
        verdict.hear(SETTINGS, "" if result == "+" else "refused", float(number))
        said += "+" if verdict.up else "-"
    return said


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ("+++", "+++"),
        ("---", "++-"),
        ("--+--+---", "++++++++-"),
        ("---+-++", "++----+"),
        ("---++---", "++--+++-"),
    ],
)
def test_only_so_many_in_a_row_change_it(results: str, said: str) -> None:
    assert hear(Verdict(), results) == said


def test_it_tells_when_it_changes_and_what_was_wrong() -> None:
    verdict = Verdict()
    changes = [verdict.hear(SETTINGS, "timed out", float(n)) for n in range(1, 5)]
    assert changes == [False, False, True, False]
    assert (verdict.since, verdict.last) == (3.0, "timed out")
    assert not verdict.hear(SETTINGS, "", 9.0)
    assert verdict.hear(SETTINGS, "", 10.0)
    assert (verdict.since, verdict.last) == (10.0, "")
