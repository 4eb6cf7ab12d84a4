"""One connection of the API: reads a request, writes its answer, and then perhaps the next.

What a peer can cost is bounded, whatever it sends:

- Every byte of a request counts. All that is not its body (start line, fields, trailers, sizes and
  extensions of chunks, empty lines in front) may have `MAX_HEAD_BYTES` together, and the body
  `MAX_BODY_BYTES`. Only what still counts is given to the parser.
- A connection has one deadline. Only a complete request moves it, and the answer to that: a large
  one with all that is read of it, until a slow rate would have been enough for all.
- One request at a time: what arrives before an answer is discarded, and the connection ends after
  the answer. (RFC 9112 demands of pipelining clients that they ask again.)
- An answer that is given before its request has ended is the last. What still arrives is discarded
  for a short time, because a reset could overtake the answer.
- Of a caller that is not allowed nothing is parsed.

For one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from urllib.parse import unquote

import httptools

from edgeproxy.api.fault import FaultError
from edgeproxy.api.guard import MAX_BODY_BYTES, Guard, refusal, too_long
from edgeproxy.api.http1.connection_limits import Place
from edgeproxy.api.http1.message import CLOSE, Answer, Head
from edgeproxy.api.http1.unread import SMALL_BYTES, UnreadAnswers

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 128
"""Fields of a head and its trailers. Browsers behind proxies send some thirty."""
KEEP_ALIVE_SECS = 15.0
LINGER_SECS = 2.0
LINGER_BYTES = 256 * 1024
PIECE_BYTES = 64 * 1024
"""Written at once, of a large answer."""
LEAST_BYTES_PER_SEC = 128 * 1024
"""Who reads a large answer steadily has at least as long as this rate takes."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NOT_ALLOWED = FaultError(403, "this address may not call the API; see EDGEPROXY_API_ALLOW")


class _Phase(Enum):
    READING = auto()
    ANSWERING = auto()
    LINGERING = auto()


class _StopError(Exception):
    """Nothing that follows is to be parsed."""


class Connection(asyncio.Protocol):
    """One connection. `closed` is called once, at its end."""

    def __init__(
        self,
        guard: Guard,
        place: Place,
        unread: UnreadAnswers,
        timeout_secs: float,
        closed: Callable[[Connection], None],
    ) -> None:
        self.place = place
        self.answering: asyncio.Task[None] | None = None
        self._guard = guard
        self._unread = unread
        self._unread_bytes = 0
        self._timeout_secs = timeout_secs
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._ends: tuple[tuple[str, int], ...] = ()  # of the caller, and of ours
        self._due: asyncio.TimerHandle | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._is_last = False  # the connection ends after this answer
        self._has_ended = False  # the peer sends no more
        self._is_paused = False  # the peer does not read its answer
        self._unsent: deque[memoryview] = deque()
        self._read_by = 0.0  # when all of it has to be read
        self._begin()

    def _begin(self) -> None:
        """Be ready for a request."""
        self._phase = _Phase.READING
        self._fed = 0
        self._count_of_fields = 0
        self._lingering_bytes = LINGER_BYTES
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._body = bytearray()
        self._is_begun = False
        self._is_complete = False
        self._fault: FaultError | None = None

    # -- what asyncio calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ends = tuple(
            (transport.get_extra_info(name) or ("", 0))[:2]  # None: the caller has left already
            for name in ("peername", "sockname")
        )
        self._arm(self._timeout_secs)
        if self._is_last:  # the server is being stopped
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived, if it is a part of a request that may be read."""
        if self._phase is _Phase.LINGERING:
            self._lingering_bytes -= len(data)
            if self._lingering_bytes < 0:
                self.abort()
        elif self._phase is _Phase.ANSWERING:
            self._is_last = True
            self._pause_reading()
        elif self.place.is_denied:
            self._refuse(NOT_ALLOWED)
        else:
            self._read(data)

    def eof_received(self) -> bool:
        """The peer sends no more; return whether it still gets an answer."""
        self._is_last = self._has_ended = True
        return self._phase is _Phase.ANSWERING or bool(self._unsent)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget everything."""
        self._disarm()
        self._unsent.clear()
        self._forget_unread()
        self._parser = None  # they refer to each other
        self._closed(self)

    def pause_writing(self) -> None:
        """Read no further request while the answer to this one waits to be read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """What was written of the answer has been read."""
        self._is_paused = False
        if self._unsent:
            self._write_more()
            if not self._unsent and self._is_last:
                self._all_is_sent()
            left_secs = self._read_by - self._loop.time()
            self._arm(min(KEEP_ALIVE_SECS, max(left_secs, 0.0)))
        if not self._is_paused:
            self._forget_unread()
            if self._phase is not _Phase.ANSWERING and self._transport is not None:
                self._transport.resume_reading()

    # -- what the parser calls ---------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        if self._is_complete:
            raise _StopError  # a further request, before this one is answered
        self._is_begun = True

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those of the trailers mean nothing here."""
        self._count_of_fields += 1
        if self._count_of_fields > MAX_FIELDS:
            self._fail(FaultError(431, f"a request may have up to {MAX_FIELDS} header fields"))
        if self._head is None:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Refuse the request now if its head says enough."""
        assert self._parser is not None
        target = httptools.parse_url(self._url)
        path = target.path or b"/"
        self._head = Head(
            self._parser.get_method().decode("ascii"),
            unquote(path.decode("ascii")),
            path,
            target.query or b"",
            self._fields,
            self.place.caller,
            *self._ends,
        )
        is_old = self._parser.get_http_version() == "1.0"
        if is_old or not self._parser.should_keep_alive():
            self._is_last = True
        headers = self._head.by_name
        try:
            self._guard.admit(self._head)
        except FaultError as fault:
            if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
                self._fail(fault)
            self._fault = fault.with_traceback(None)  # the request ends here
            return
        expects = headers.get(b"expect", b"").lower()
        if expects == b"100-continue" and not is_old and self._transport is not None:
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            self._fail(too_long())

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._is_complete = True

    def _fail(self, fault: FaultError) -> None:
        """End the parsing: the answer is this fault."""
        self._fault = fault.with_traceback(None)  # a traceback would hold this connection
        raise _StopError

    # -- reading -----------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        assert self._parser is not None
        while data:
            room = MAX_HEAD_BYTES - (self._fed - len(self._body))
            if room <= 0:
                self._refuse(FaultError(431, f"a head may have up to {MAX_HEAD_BYTES} bytes"))
                return
            piece, data = data[:room], data[room:]
            self._fed += len(piece)
            is_broken = False
            try:
                self._parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                is_broken = True
            if self._is_complete:
                self._is_last = self._is_last or is_broken or bool(data)
                self._phase = _Phase.ANSWERING
                if self._fault is not None:
                    self._respond(refusal(self._fault))
                    return
                self._arm(self._timeout_secs * 2)
                self.answering = self._loop.create_task(self._answer())
                return
            if is_broken:
                self._refuse(self._fault or FaultError(400, "this is not HTTP/1.1"))
                return

    # -- writing -----------------------------------------------------------------------

    async def _answer(self) -> None:
        assert self._head is not None
        answer = await self._guard.answer(self._head, bytes(self._body))
        self.answering = None
        if self._transport is not None and not self._transport.is_closing():
            self._respond(answer)

    def _respond(self, answer: Answer) -> None:
        """Answer a request that is complete; wait for the next one, unless this is the last."""
        assert self._head is not None
        has_body = self._head.method != "HEAD"
        if has_body and answer.size > SMALL_BYTES:
            if self._unread.take(self.place.key, answer.size):
                self._unread_bytes = answer.size
            else:
                reason = "too many answers wait to be read"
                answer = refusal(FaultError(503, reason, headers={"Retry-After": "1"}))
        self._is_last = self._is_last or CLOSE in answer.headers
        if self._is_last:
            self._end(answer, has_body=has_body)
        else:
            self._write(answer, has_body=has_body)
            self._begin()
            self._arm(KEEP_ALIVE_SECS)
            if self._is_paused:
                self._pause_reading()
        if not self._is_paused:
            self._forget_unread()

    def _forget_unread(self) -> None:
        if self._unread_bytes:
            self._unread.give_back(self.place.key, self._unread_bytes)
            self._unread_bytes = 0

    def _refuse(self, fault: FaultError) -> None:
        self._end(refusal(fault), has_body=True)

    def _end(self, answer: Answer, *, has_body: bool) -> None:
        """Write the last answer, and discard what the peer still sends, until it closes."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        is_large = has_body and answer.size > SMALL_BYTES
        self._phase = _Phase.LINGERING
        self._is_last = True
        self._write(answer, has_body=has_body)
        self._transport.resume_reading()
        self._arm(KEEP_ALIVE_SECS if is_large else LINGER_SECS)
        if not self._unsent:
            self._all_is_sent()

    def _write(self, answer: Answer, *, has_body: bool) -> None:
        """Write an answer: what is small in one piece, a large body as fast as it is read."""
        assert self._transport is not None
        head = answer.head(closes=self._is_last)
        if has_body and answer.size > SMALL_BYTES:
            self._transport.write(head)
            self._unsent.extend(map(memoryview, answer.body))
            reading_secs = answer.size / LEAST_BYTES_PER_SEC
            self._read_by = self._loop.time() + KEEP_ALIVE_SECS + reading_secs
            self._write_more()
        else:
            self._transport.write(b"".join((head, *(answer.body if has_body else ()))))

    def _write_more(self) -> None:
        assert self._transport is not None
        while self._unsent and not self._is_paused and not self._transport.is_closing():
            piece = self._unsent.popleft()
            if len(piece) > PIECE_BYTES:
                self._unsent.appendleft(piece[PIECE_BYTES:])
            self._transport.write(piece[:PIECE_BYTES])

    def _all_is_sent(self) -> None:
        """End our direction after the last answer."""
        assert self._transport is not None
        if self._phase is not _Phase.LINGERING or self._has_ended:
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the caller has left, and the answer was reset
            self.abort()

    @property
    def is_sending(self) -> bool:
        """Whether a part of an answer waits to be read."""
        return bool(self._unsent) or (
            self._transport is not None and self._transport.get_write_buffer_size() > 0
        )

    def shut_down(self) -> None:
        """Close after the request under way, if there is one."""
        self._is_last = True
        is_idle = self._phase is _Phase.READING and not self._is_begun and not self._unsent
        if is_idle and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- the deadline ------------------------------------------------------------------

    def _late(self) -> None:
        # One that is closing may still wait for its peer to read an earlier answer.
        is_closing = self._transport is not None and self._transport.is_closing()
        if self._phase is _Phase.READING and self._is_begun and not is_closing:
            reason = f"the request took longer than {self._timeout_secs:g} s"
            self._refuse(FaultError(408, reason))
        else:
            self.abort()

    def _arm(self, secs: float) -> None:
        self._disarm()
        self._due = self._loop.call_later(secs, self._late)

    def _disarm(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()
