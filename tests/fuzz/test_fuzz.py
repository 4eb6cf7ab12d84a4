"""A short run of the fuzzer, the same every time; `./task fuzz` is the long one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fuzz.fuzzer import VALUE, FoundError, fuzz
from tests.fuzz.targets import TARGETS, Target

INPUTS = 20_000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_bytes_break_no_promise(target: Target) -> None:
    report = fuzz(target, 1, lambda inputs: inputs < INPUTS)
    assert report.inputs == INPUTS
    assert report.answers[VALUE] > INPUTS / 100
    assert len(report.answers) > 10, "it does not get far"
    assert report.slowest_cpu_secs < 0.5


def test_a_seed_repeats_a_run() -> None:
    one, other = (fuzz(TARGETS[0], 3, lambda inputs: inputs < 500) for _ in range(2))
    assert one.answers == other.answers


def _forgets_a_length(data: bytes) -> object:
    return data[3] if data else None


def _changes_its_mind(data: bytes) -> object:
    return len(data) or None


def _never_answers(_: bytes) -> object:
    return None


@pytest.mark.parametrize("decode", [_forgets_a_length, _changes_its_mind, _never_answers])
def test_a_broken_promise_is_found(decode: object) -> None:
    bad = replace(TARGETS[0], decode=decode, check=lambda _value, _data: None)  # type: ignore[arg-type]
    with pytest.raises(FoundError, match=r"PROXY protocol: .* for [0-9a-f]*$"):
        fuzz(bad, 1, lambda inputs: inputs < 200)
