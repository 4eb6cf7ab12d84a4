"""The phases of a proxy, event by event."""

from __future__ import annotations

import pytest

from edgeproxy.process.lifecycle import Event, Lifecycle, Phase

UPGRADED = [Event.READY, Event.UPGRADE_BEGUN, Event.SUCCESSOR_READY]


def life(*events: Event) -> Lifecycle:
    """Return a lifecycle after these events."""
    lifecycle = Lifecycle()
    for event in events:
        lifecycle.add(event)
    return lifecycle


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([], Phase.STARTING),
        ([Event.READY], Phase.SERVING),
        ([Event.STOP_SIGNAL], Phase.STOPPING),
        ([Event.STOP_SIGNAL, Event.READY], Phase.STOPPING),
        ([Event.READY, Event.STOP_SIGNAL], Phase.STOPPING),
        ([Event.READY, Event.UPGRADE_BEGUN], Phase.UPGRADING),
        ([Event.READY, Event.UPGRADE_BEGUN, Event.UPGRADE_FAILED], Phase.SERVING),
        (UPGRADED, Phase.HANDED_OVER),
        ([*UPGRADED, Event.DRAIN_BEGUN], Phase.DRAINING_FOR_SUCCESSOR),
        ([Event.READY, Event.STOP_SIGNAL, Event.DRAIN_BEGUN], Phase.DRAINING),
        ([Event.READY, Event.STOP_SIGNAL, Event.DRAIN_BEGUN, Event.DRAIN_ENDED], Phase.STOPPED),
    ],
)
def test_events_lead_to_a_phase(events: list[Event], phase: Phase) -> None:
    assert life(*events).phase is phase


def test_signals_before_the_drain_count_as_one() -> None:
    stop = Event.STOP_SIGNAL
    assert life(stop, stop, stop, Event.DRAIN_BEGUN).is_draining
    assert not life(stop, stop, stop, Event.DRAIN_BEGUN, stop).is_draining


def test_the_second_signal_of_a_drain_ends_it() -> None:
    draining = [Event.READY, Event.STOP_SIGNAL, Event.DRAIN_BEGUN]
    assert life(*draining).is_draining
    assert life(*draining, Event.STOP_SIGNAL).phase is Phase.STOPPED


def test_the_first_signal_after_an_upgrade_changes_nothing() -> None:
    draining = [*UPGRADED, Event.DRAIN_BEGUN]
    assert life(*draining, Event.STOP_SIGNAL).is_draining
    assert not life(*draining, Event.STOP_SIGNAL, Event.STOP_SIGNAL).is_draining


def test_a_signal_between_the_upgrade_and_the_drain_is_the_first() -> None:
    early = life(*UPGRADED, Event.STOP_SIGNAL, Event.DRAIN_BEGUN)
    assert early.is_draining
    assert early.has_successor
    early.add(Event.STOP_SIGNAL)
    assert not early.is_draining


def test_a_successor_of_a_proxy_that_was_asked_to_stop_takes_nothing_over() -> None:
    events = [Event.READY, Event.UPGRADE_BEGUN, Event.STOP_SIGNAL, Event.SUCCESSOR_READY]
    assert not life(*events).has_successor
    assert life(*events).phase is Phase.STOPPING


@pytest.mark.parametrize("phase", list(Phase))
def test_a_crash_wins_in_every_phase(phase: Phase) -> None:
    ways = {
        Phase.STARTING: [],
        Phase.SERVING: [Event.READY],
        Phase.UPGRADING: [Event.READY, Event.UPGRADE_BEGUN],
        Phase.HANDED_OVER: UPGRADED,
        Phase.STOPPING: [Event.STOP_SIGNAL],
        Phase.DRAINING_FOR_SUCCESSOR: [*UPGRADED, Event.DRAIN_BEGUN],
        Phase.DRAINING: [Event.STOP_SIGNAL, Event.DRAIN_BEGUN],
        Phase.STOPPED: [Event.STOP_SIGNAL, Event.DRAIN_BEGUN, Event.DRAIN_ENDED],
        Phase.CRASHED: [Event.CRASH],
    }
    before = life(*ways[phase])
    assert before.phase is phase
    before.add(Event.CRASH)
    assert before.phase is Phase.CRASHED
    assert before.exit_code == 1
    for event in Event:
        before.add(event)
    assert (before.phase, before.exit_code) == (Phase.CRASHED, 1)


def test_an_orderly_end_has_exit_code_0() -> None:
    assert life(Event.READY, Event.STOP_SIGNAL, Event.DRAIN_BEGUN, Event.DRAIN_ENDED).exit_code == 0


def test_requests_to_stop_are_counted_and_a_crash_is_one() -> None:
    assert life(Event.STOP_SIGNAL, Event.READY, Event.CRASH, Event.STOP_SIGNAL).stop_requests == 3
