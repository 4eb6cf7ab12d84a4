"""Signals become an exception where that is allowed, at once or later, and nowhere else."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from edgeproxy.cli.demo.signals import SIGNALS, Interruption, StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    signals = StopSignals()
    with signals.caught():
        yield signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_raised_where_that_is_allowed(signals: StopSignals, number: int) -> None:
    with pytest.raises(Interruption) as raised, signals.allowed():
        signal.raise_signal(number)
    assert raised.value.number == number
    assert raised.value.name == signal.Signals(number).name


def test_what_is_held_off_is_raised_afterwards(signals: StopSignals) -> None:
    done = []

    def work() -> None:
        with signals.allowed():
            with signals.held_off():
                signal.raise_signal(signal.SIGTERM)
                with signals.held_off():
                    done.append("inner")
                done.append("outer")
            done.append("never")

    with pytest.raises(Interruption):
        work()
    assert done == ["inner", "outer"]


def test_an_error_while_held_off_comes_through_and_the_signal_stays(
    signals: StopSignals,
) -> None:
    with signals.allowed():
        with suppress(ValueError), signals.held_off():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError
        with pytest.raises(Interruption), signals.held_off():
            pass


def test_after_one_interruption_none_is_raised_until_allowed_anew(
    signals: StopSignals,
) -> None:
    with signals.allowed():
        with pytest.raises(Interruption):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # as while everything is being cleaned up
        with pytest.raises(Interruption), signals.allowed():
            pass


def test_nothing_is_raised_where_it_is_not_allowed(signals: StopSignals) -> None:
    with signals.allowed():
        pass
    for number in SIGNALS:
        signal.raise_signal(number)
    with signals.held_off():
        pass


def test_signals_do_afterwards_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals().caught():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
