"""Claims: what is waited for has a deadline, and an unmet one says what was seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeproxy.cli.demo import expected
from edgeproxy.cli.demo.expected import UnmetError, eventually, expect


def test_what_is_as_expected_passes_silently() -> None:
    expect("both are equal", 3, 3)


def test_anything_else_names_the_claim_and_both_values() -> None:
    with pytest.raises(UnmetError) as raised:
        expect("the answer is right", 42, 41)
    error = raised.value
    assert (error.claim, error.expected, error.seen) == ("the answer is right", 42, 41)
    assert str(error) == "the answer is right: expected 42, seen 41"


def test_waiting_ends_with_the_first_thing_that_is_seen_even_if_it_is_zero() -> None:
    looks: Iterator[int | None] = iter([None, None, 0, 1])
    assert eventually("something is there", lambda: next(looks)) == 0


def test_waiting_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "DEADLINE_SECS", 0.05)
    with pytest.raises(UnmetError, match=r"it happens: expected within 0\.05 s, seen not yet"):
        eventually("it happens", lambda: None)
