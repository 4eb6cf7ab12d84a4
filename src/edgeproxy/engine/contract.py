"""What passes between an engine, which carries bytes, and a gate, which decides.

The engine owns sockets: it accepts, asks the gate, dials, relays, closes and counts. It
parses nothing and knows nothing of backends. The gate decides at once: its methods run on
the engine's gate thread, one at a time, and never block.

Order of calls for one client:

    opened ─┬─ Refuse                                  (the client is closed)
            ├─ Wait ── asked_again …                   (when a slot may be free; answers as opened)
            └─ Connect ─┬─ failed ─┬─ Refuse           (the client is closed)
                        │          └─ Connect …        (the next attempt)
                        ├─ dialed ── closed
                        └─ closed                      (the client left while dialing)

Where a listener wants a preamble or speaks TLS, the gate is first asked whether the client may
begin with that. If a preamble is wanted, the gate then sees the client's first bytes, which stay
unread:

    arrived ─┬─ Refuse                                 (the client is closed)
             └─ Enter ── preamble_read ─┬─ NeedMore ── preamble_read …
                                        ├─ Refuse      (the client is closed)
                                        └─ Identified ── opened …  (after the handshake, if any)

Every `Enter` is ended by exactly one `opened`, `client_lost`, or `Refuse` of a preamble.

The states in between, and what leads from one to the next, are in `engine/session_states`.

Every `Connect` is ended by exactly one `failed` or `closed` with its ticket, whatever
happens. A ticket is any object of the gate's; the engine only hands it back.

`now` is always monotonic seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Container, Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgeproxy.engine.tls import TlsInfo, TlsSettings

if TYPE_CHECKING:
    from edgeproxy.engine.session_states import Outcome

SocketAddress = tuple[Any, ...]
"""As `socket` gives it: `(host, port)`, or `(host, port, flow, scope)` for IPv6."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine treats sockets.

    Attributes:
        kind: `native`, `portable`, or `auto` for the best one there is.
        connect_timeout_secs: How long one backend may take to answer a dial.
        idle_timeout_secs: A session that carries no byte in either direction for this long is
            closed; 0 is never.
        user_timeout_secs: How long sent data may stay unacknowledged before the peer
            counts as gone; 0 leaves it to the system. See `engine/portable/unacked`.
        backend_ca_pem: The authorities that sign the certificates of backends; empty: those
            that the system trusts; None: TLS is spoken with no backend.
        byte_threads: How many threads of the native engine carry bytes; 0 is one for each
            CPU that the process may use.
    """

    kind: str = "auto"
    connect_timeout_secs: float = 5.0
    idle_timeout_secs: float = 0.0
    user_timeout_secs: float = 30.0
    byte_threads: int = 0
    backend_ca_pem: bytes | None = None


class DialFailure(StrEnum):
    """Why a dial failed, as given to `Gate.failed`."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    ERROR = "error"
    HANDSHAKE = "handshake"
    """The backend does not speak TLS, or its certificate is not trusted."""
    NO_PORT = "no_port"
    """Nothing was sent: all local ports towards this address are in use."""
    LOCAL = "local"
    """Nothing was sent: this host has no descriptors or memory left."""


class CloseReason(StrEnum):
    """Why a session ended, as given in `Outcome.reason`."""

    FINISHED = "finished"
    """Both sides sent everything and closed."""
    CLIENT_RESET = "client_reset"
    BACKEND_RESET = "backend_reset"
    CLIENT_GONE = "client_gone"
    """The client left before a backend had answered."""
    IDLE = "idle"
    TIMED_OUT = "timed_out"
    """A peer stopped acknowledging, or answering keepalive probes."""
    ABORTED = "aborted"
    """The proxy closed it: shutdown, or a request to close it."""
    TLS_ERROR = "tls_error"
    """A peer violated the TLS protocol."""
    FAULT = "fault"
    """A bug occurred while serving the session; the log has a traceback."""


class HandshakeFailure(StrEnum):
    """Why a client has gone before the gate was asked, as given to `Gate.client_lost`."""

    CLIENT_GONE = "client_gone"
    """The client left by itself."""

    HANDSHAKE_FAILED = "handshake_failed"
    """No TLS, no common parameters, or one side rejects the other's certificate."""
    HANDSHAKE_TIMEOUT = "handshake_timeout"


class Client(NamedTuple):
    """A client as the gate sees it. The engine makes it when it accepts the client.

    Attributes:
        address: Its IP address in plain form: an IPv4 client of a dual-stack listener has an IPv4
            address, and an IPv6 address has no scope id.
        port: 0 for a client of a Unix socket, whose address is that of this host.
        listener: The name of the listener that it has connected to.
        about: What the gate has said of it in `Identified`; where TLS is spoken, a `TlsInfo` that
            holds this.
        local: This host's end of the connection, in plain form, if the listener `tells_local`.
        entry: What the gate has said of it in `Enter`; None if it was not asked.
    """

    address: str
    port: int
    listener: str
    about: object = None
    local: tuple[str, int] | None = None
    entry: object = None

    def identified(self, known: Identified) -> Client:
        """Return this client with what its preamble says."""
        address, port = known.source or (self.address, self.port)
        return Client(address, port, self.listener, known.about, self.local, self.entry)

    def over_tls(self, info: TlsInfo) -> Client:
        """Return this client after its handshake."""
        return self._replace(about=info._replace(about=self.about))


class Connect(NamedTuple):
    """Dial `address` for this client and give up after `timeout_secs`.

    `preconnected_fd` is the descriptor of a socket that is connecting or connected to it, or -1.
    The engine owns it, uses it instead of a new one, and reports its dial as one of 0 seconds.
    `prefix` is sent to the backend before the client's first byte; it is not counted.
    With `server_name`, TLS is spoken with the backend, after the prefix; the backend's certificate
    must be for that name. A handshake that fails is a failed dial.
    """

    ticket: object
    address: tuple[str, int]
    timeout_secs: float
    preconnected_fd: int = -1
    prefix: bytes = b""
    server_name: str = ""


class Refuse(NamedTuple):
    """Close this client without a byte."""

    reason: str


class Wait(NamedTuple):
    """No slot is free for this client, as far as the gate knows; see `engine/slot_wait`.

    `place` is any object of the gate's, for `Gate.asked_again`. It holds nothing that would have to
    be given back. `line` is what the client waits for (`Gate.frees`); where the first in a line has
    to go on waiting, so have the others. Who is one client, and of which site ("": of none), says
    who shares the room for those that wait.
    """

    place: Any
    line: Hashable
    client: str
    site: str = ""


Answer = Connect | Refuse
FirstAnswer = Connect | Refuse | Wait


class Enter(NamedTuple):
    """A client may begin with its preamble or handshake. `entry` goes into the `Client`."""

    entry: object = None


class NeedMore(NamedTuple):
    """Wait until a client has sent this many bytes in all, or will send no more."""

    bytes_wanted: int


class Identified(NamedTuple):
    """The preamble is complete: the gate may be asked for a backend.

    The first `skip` bytes are not for the backend. `source` replaces the client's address, in
    plain form, and its port; None leaves them. `about` goes into the `Client`.
    """

    skip: int = 0
    source: tuple[str, int] | None = None
    about: object = None


class Preamble(NamedTuple):
    """What a client has sent so far.

    `is_all`: no more will be read. The client has ended its side (`has_ended`), has taken too long,
    or has sent `PREAMBLE_BYTES`.
    """

    received: bytes
    is_all: bool
    has_ended: bool = False


PREAMBLE_BYTES = 1 << 15
"""The longest preamble, in bytes."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """How an engine treats the clients of a listener before the gate is asked.

    Attributes:
        preamble_secs: How long a client may take to complete its preamble; 0: the gate is asked
            at once, without a preamble.
        tls: How TLS is spoken with clients, after the preamble; None: without TLS.
        tells_local: `Client.local` is set.
    """

    preamble_secs: float = 0.0
    tls: TlsSettings | None = None
    tells_local: bool = False


PLAIN = ListenerSettings()


class SessionInfo(NamedTuple):
    """One live session, as `Engine.sessions` lists it.

    `client` is the address as the socket gives it, or the `source` of its `Identified`.
    """

    ticket: object
    client: SocketAddress
    state: str
    """`dialing`, `open`, or `half_closed` when one side has sent everything."""
    bytes_in: int
    bytes_out: int
    secs: float


class SessionEnds(NamedTuple):
    """The ends of the two connections of a session, in plain form.

    `accepted_at` is this host's end towards the client, `dialed_from` that towards the backend;
    None without such a connection.
    """

    ticket: Any
    client: tuple[str, int]
    accepted_at: tuple[str, int] | None
    dialed_from: tuple[str, int] | None


class Gate(Protocol):
    """Decides. Called on the gate thread only; must neither block nor raise."""

    def arrived(self, client: Client, now: float) -> Enter | Refuse:
        """A client has connected to a listener that wants a preamble or speaks TLS."""

    def preamble_read(
        self, client: Client, preamble: Preamble, now: float
    ) -> NeedMore | Identified | Refuse:
        """A client of a listener that wants a preamble has sent these first bytes."""

    def opened(self, client: Client, now: float) -> FirstAnswer:
        """A client has connected, and its preamble and handshake are over."""

    def asked_again(self, place: Any, now: float, *, is_last: bool) -> FirstAnswer:
        """A slot may be free for the client with this place (`Wait`).

        With `is_last` none will be soon: the answer is not `Wait`.
        """

    def frees(self, ticket: Any) -> Iterable[Hashable]:
        """Return the lines (`Wait.line`) that the end of this ticket, told next, may help."""

    def client_lost(self, client: Client, reason: str, now: float) -> None:
        """A client that was let in has gone before the gate was asked for a backend.

        The reason is a `HandshakeFailure`, or `CloseReason.ABORTED` if the engine gives it up.
        """

    def dialed(self, ticket: Any, secs: float, now: float) -> None:
        """The backend answered after `secs`; bytes are about to flow.

        `secs` is 0 for a connection that was begun before (`Connect.preconnected_fd`).
        """

    def failed(self, ticket: Any, reason: str, now: float, why: str = "") -> Answer:
        """The dial of this ticket failed (`DialFailure`); this ticket has ended.

        `why` is OpenSSL's reason for a failed handshake; it holds no text of the backend.
        """

    def closed(self, ticket: Any, outcome: Outcome, now: float) -> None:
        """The session of this ticket has ended."""

    def stood_still(self, secs: float) -> None:
        """For so long this process heard nobody: no silence in it counts (`standstill`)."""

    def tick(self, now: float) -> None:
        """Called about once a second, for housekeeping."""


class Engine(Protocol):
    """Carries bytes. Made with settings and a gate; all methods may be called from any thread."""

    kind: str

    def listen(
        self, name: str, listening: socket.socket, settings: ListenerSettings = PLAIN
    ) -> None:
        """Accept from this listening socket from now on; the engine owns and closes it.

        Raises TlsError; the socket is then closed.
        """

    def start(self) -> None:
        """Start the engine's threads."""

    def stop_accepting(self) -> None:
        """Accept what has already connected, then close the listeners. Returns when done."""

    def renew(self, name: str, settings: TlsSettings) -> None:
        """Speak TLS with new clients of this listener with these settings. Raises TlsError.

        In force for every client that connects after it has returned; so is `trust`.
        """

    def trust(self, backend_ca_pem: bytes) -> None:
        """Trust backends by these certificates from now on (`EngineSettings`). Raises TlsError."""

    def unlisten(self, name: str) -> None:
        """Accept what has already connected to this listener, then close it. Returns when done."""

    def live(self) -> int:
        """Return how many clients wait for admission, dial, are served or linger."""

    def sessions(self) -> list[SessionInfo]:
        """List the live sessions."""

    def carried(self) -> list[tuple[Any, int, int]]:
        """Return every live session's ticket, bytes in and bytes out so far.

        Cheap where `sessions` is not: for counters that are read again and again.
        """

    def unanswered(self) -> list[tuple[Any, int, bool, float]]:
        """Return the live sessions whose backend has not sent a byte.

        Of each: its ticket, the port of its client, whether a side has ended, its age in seconds.
        """

    def ends(self, wanted: Container[Any]) -> list[SessionEnds]:
        """Return the ends of the live sessions whose ticket is `wanted`."""

    def close_sessions(self, wanted: Callable[[Any], bool] | None = None) -> None:
        """Close the sessions whose ticket is `wanted` (all by default), `ABORTED`.

        A side that has been given everything sees an ordinary end. One that would miss
        bytes, or whose own bytes were not carried, sees a reset.
        """

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` on the gate thread soon."""

    def stop(self) -> None:
        """Close everything, end all threads and wait for them. Idempotent."""
