"""What membership tells whoever runs it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from edgeproxy.core.cluster.swim.records import Record, State


class EventKind(StrEnum):
    """What has happened to a member."""

    UP = "up"
    """A new member, one that is back, or one that has started anew: its addresses may be new."""
    SUSPECTED = "suspected"
    REFUTED = "refuted"
    """A suspect has shown that it is up; about this node itself: it had to do so."""
    DEAD = "dead"
    LEFT = "left"
    SHOWN = "shown"
    """A member shows another payload."""
    DUPLICATE_NODE_ID = "duplicate_node_id"
    """Another process uses this node's id and has started later; this machine is silent now."""


class Event(NamedTuple):
    """Something that has happened.

    Attributes:
        record: The member; for a duplicate the other process as far as it is known.
        payload: What the member shows.
    """

    kind: EventKind
    record: Record
    payload: bytes = b""


def kinds_of(before: Record | None, after: Record) -> list[EventKind]:
    """Return what the step from one record of a member to another means."""
    was_live = before is not None and before.state <= State.SUSPECT
    is_anew = before is None or before.instance != after.instance
    was_suspect = before is not None and before.state == State.SUSPECT and not is_anew
    if after.state == State.DEAD:
        return [EventKind.DEAD] if was_live else []
    if after.state == State.LEFT:
        return [EventKind.LEFT] if was_live else []
    kinds = [EventKind.UP] if is_anew or not was_live else []
    if after.state == State.SUSPECT and not was_suspect:
        kinds.append(EventKind.SUSPECTED)
    if after.state == State.ALIVE and was_suspect:
        kinds.append(EventKind.REFUTED)
    return kinds
