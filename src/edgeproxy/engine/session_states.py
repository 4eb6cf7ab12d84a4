"""The states of a session, what moves it from one to the next, and its outcome, as data.

Theory of operation. A client is accepted and becomes known: its listener may want a preamble
(`PREREAD`) and TLS (`HANDSHAKE`). If it wants either, the gate is asked first whether the client
may begin (`ARRIVAL`); one that wants neither admits the client at once. The gate is then asked for
a backend (`ADMISSION`). Where no slot is free the client waits for one for a moment (`WAITING`, see
`engine/slot_wait`). From the gate's `Connect` on, the client has a session, which
`Engine.sessions` lists and which the gate knows by its ticket.

While the session is `DIALING`, a failed dial ends the ticket, and the gate names the next backend
or refuses the client. Where TLS is spoken with the backend, its handshake belongs to the dial. When
the backend has answered, bytes flow (`OPEN`). A side that sends its end closes one direction
(`HALF_CLOSED`); when both have, the session has finished. A reset of either side ends the session
after the bytes before it, where these can still be carried. The gate is told of an end
when the backend's socket is closed, so that a free slot means that the connection is gone.

Invariants: each ticket gets exactly one `failed` or `closed`, and no call after it. `CLOSED` is
never left. A client that is refused, or lost before admission, has no ticket and is never listed.
After `CLOSED` the engine may still deliver the last bytes to a client whose backend has reset
(lingering close); the gate and `sessions` know nothing of that.

`tests/conformance/test_session_states.py` checks both engines against the table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from edgeproxy.engine.contract import CloseReason, HandshakeFailure


class SessionState(StrEnum):
    """Where a client is between accept and close; `LISTED` are shown by `Engine.sessions`."""

    ARRIVAL = "arrival"
    """The gate is asked whether the client may begin; it answers at once."""
    PREREAD = "preread"
    """The client's first bytes are read, without consuming them."""
    HANDSHAKE = "handshake"
    """The client is in its TLS handshake."""
    ADMISSION = "admission"
    """The gate is asked for a backend; it answers at once."""
    WAITING = "waiting"
    """No slot is free for the client, and one that is ending may be told a moment later."""
    DIALING = "dialing"
    OPEN = "open"
    HALF_CLOSED = "half_closed"
    """One side has sent everything, and its end has been passed on."""
    CLOSED = "closed"


LISTED = (SessionState.DIALING, SessionState.OPEN, SessionState.HALF_CLOSED)


class SessionEvent(StrEnum):
    """What happens to a client or its session."""

    ENTER = "enter"
    """The gate lets the client in. Without a preamble, `PREREAD` is over at once."""
    MORE_WANTED = "more_wanted"
    """The gate needs more of the preamble."""
    IDENTIFIED = "identified"
    """The gate knows the client."""
    REFUSED = "refused"
    """The gate refuses the client."""
    HANDSHAKE_DONE = "handshake_done"
    HANDSHAKE_FAILED = "handshake_failed"
    HANDSHAKE_LATE = "handshake_late"
    NO_SLOT = "no_slot"
    """The gate knows of no free slot."""
    CONNECT = "connect"
    """The gate names a backend."""
    DIAL_FAILED = "dial_failed"
    """The dial failed, and the gate names another backend."""
    LAST_DIAL_FAILED = "last_dial_failed"
    """The dial failed, and the gate refuses the client."""
    DIALED = "dialed"
    CLIENT_GONE = "client_gone"
    """The client left before a backend had answered."""
    SIDE_ENDED = "side_ended"
    """One side has ended its direction, and every byte of it has been carried."""
    CLIENT_RESET = "client_reset"
    BACKEND_RESET = "backend_reset"
    TLS_BROKEN = "tls_broken"
    IDLE = "idle"
    TIMED_OUT = "timed_out"
    ABORTED = "aborted"
    """The proxy closes the session (`Engine.close_sessions`, `Engine.stop`) or gives it up."""
    BUG = "bug"
    """The engine or the gate failed while serving this session."""


class Side(StrEnum):
    """One of the two peers of a session, as given in `Outcome.ended_by`."""

    CLIENT = "client"
    BACKEND = "backend"


class Outcome(NamedTuple):
    """How a session ended.

    `bytes_in` went from the client to the backend, `bytes_out` back; both count what was
    handed to the receiving socket. `secs` counts from accept, and so does `first_byte_secs`, when
    the first byte of the backend was handed to the client; None if there was none.

    `ended_by` is the peer that ended it: that was reset or left, violated TLS or did not
    acknowledge, or of a `FINISHED` session the one that ended its side first. None: no peer did.
    """

    reason: str
    bytes_in: int
    bytes_out: int
    secs: float
    first_byte_secs: float | None = None
    ended_by: Side | None = None


class Transition(NamedTuple):
    """In `state`, `event` leads to `next_state`.

    `told` is the method of `Gate` that is called, "" for none; `reason` is the reason it is given,
    where the event decides that.
    """

    state: SessionState
    event: SessionEvent
    next_state: SessionState
    told: str = ""
    reason: CloseReason | HandshakeFailure | None = None


(
    _ARRIVAL,
    _PREREAD,
    _HANDSHAKE,
    _ADMISSION,
    _WAITING,
    _DIALING,
    _OPEN,
    _HALF_CLOSED,
    _CLOSED,
) = SessionState
_EVENT = SessionEvent

_ENDS = (
    (_EVENT.CLIENT_RESET, CloseReason.CLIENT_RESET),
    (_EVENT.BACKEND_RESET, CloseReason.BACKEND_RESET),
    (_EVENT.TLS_BROKEN, CloseReason.TLS_ERROR),
    (_EVENT.IDLE, CloseReason.IDLE),
    (_EVENT.TIMED_OUT, CloseReason.TIMED_OUT),
    (_EVENT.ABORTED, CloseReason.ABORTED),
    (_EVENT.BUG, CloseReason.FAULT),
)
"""What ends a session whose backend has answered, whether one side has ended or not."""

_GONE, _LOST, _LATE = HandshakeFailure

TRANSITIONS = (
    Transition(_ARRIVAL, _EVENT.ENTER, _PREREAD, "arrived"),
    Transition(_ARRIVAL, _EVENT.REFUSED, _CLOSED, "arrived"),
    Transition(_PREREAD, _EVENT.MORE_WANTED, _PREREAD, "preamble_read"),
    Transition(_PREREAD, _EVENT.IDENTIFIED, _HANDSHAKE, "preamble_read"),
    Transition(_PREREAD, _EVENT.REFUSED, _CLOSED, "preamble_read"),
    Transition(_PREREAD, _EVENT.ABORTED, _CLOSED, "client_lost", CloseReason.ABORTED),
    Transition(_HANDSHAKE, _EVENT.HANDSHAKE_DONE, _ADMISSION),
    Transition(_HANDSHAKE, _EVENT.CLIENT_GONE, _CLOSED, "client_lost", _GONE),
    Transition(_HANDSHAKE, _EVENT.HANDSHAKE_FAILED, _CLOSED, "client_lost", _LOST),
    Transition(_HANDSHAKE, _EVENT.HANDSHAKE_LATE, _CLOSED, "client_lost", _LATE),
    Transition(_HANDSHAKE, _EVENT.ABORTED, _CLOSED, "client_lost", CloseReason.ABORTED),
    Transition(_ADMISSION, _EVENT.CONNECT, _DIALING, "opened"),
    Transition(_ADMISSION, _EVENT.REFUSED, _CLOSED, "opened"),
    Transition(_ADMISSION, _EVENT.NO_SLOT, _WAITING, "opened"),
    Transition(_WAITING, _EVENT.NO_SLOT, _WAITING, "asked_again"),
    Transition(_WAITING, _EVENT.CONNECT, _DIALING, "asked_again"),
    Transition(_WAITING, _EVENT.REFUSED, _CLOSED, "asked_again"),
    Transition(_DIALING, _EVENT.DIAL_FAILED, _DIALING, "failed"),
    Transition(_DIALING, _EVENT.LAST_DIAL_FAILED, _CLOSED, "failed"),
    Transition(_DIALING, _EVENT.DIALED, _OPEN, "dialed"),
    Transition(_DIALING, _EVENT.CLIENT_GONE, _CLOSED, "closed", CloseReason.CLIENT_GONE),
    Transition(_DIALING, _EVENT.ABORTED, _CLOSED, "closed", CloseReason.ABORTED),
    Transition(_DIALING, _EVENT.BUG, _CLOSED, "closed", CloseReason.FAULT),
    Transition(_OPEN, _EVENT.SIDE_ENDED, _HALF_CLOSED),
    Transition(_HALF_CLOSED, _EVENT.SIDE_ENDED, _CLOSED, "closed", CloseReason.FINISHED),
    *(
        Transition(state, event, _CLOSED, "closed", reason)
        for state in (_OPEN, _HALF_CLOSED)
        for event, reason in _ENDS
    ),
)
