"""Refusals are counted, and told about once a minute each."""

from __future__ import annotations

import logging

import pytest

from edgeproxy.cluster.sessions.auth import Refusal
from edgeproxy.cluster.sessions.refusals import LOG_SECS, NO_PLACE, Refusals


def test_each_is_counted_and_each_reason_is_told_once_a_minute_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = Refusals()
    reasons = [*(each.value for each in Refusal), NO_PLACE]
    assert refusals.counts == dict.fromkeys(reasons, 0)
    with caplog.at_level(logging.WARNING, logger="edgeproxy"):
        for now in (0.0, 1.0, LOG_SECS - 1, LOG_SECS):
            for reason in reasons:
                refusals.note(reason, "192.0.2.1:4002", now)
    assert refusals.counts == dict.fromkeys(reasons, 4)
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [each["reason"] for each in fields] == reasons * 2
    assert {each["suppressed"] for each in fields[len(reasons) :]} == {2}
    assert all(each["hint"] for each in fields)
