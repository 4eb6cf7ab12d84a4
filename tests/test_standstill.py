"""What counts as a standstill."""

from __future__ import annotations

import pytest

from edgeproxy.standstill import LATE_SECS, WATCH_SECS, standstill_secs


@pytest.mark.parametrize("late_secs", [-1.0, 0.0, LATE_SECS / 2, LATE_SECS])
def test_a_timer_that_is_a_little_late_shows_nothing(late_secs: float) -> None:
    assert standstill_secs(100.0, 100.0 + late_secs) == 0.0


def test_a_timer_that_is_very_late_shows_for_how_long_nothing_was_heard() -> None:
    assert standstill_secs(100.0, 160.0) == 60.0


def test_a_standstill_is_noticed_to_within_a_short_time() -> None:
    assert LATE_SECS < WATCH_SECS <= 1.0
