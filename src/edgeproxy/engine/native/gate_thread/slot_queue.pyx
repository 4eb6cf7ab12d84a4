# cython: language_level=3, cdivision=True
"""Clients that wait for a slot; `engine/slot_wait` says for how long, and why.

The twin of `portable/ingress/slot_queue`. What came before a client has been read when every byte
thread has gone through one more turn (`Workers.ask_for_turns`).
"""

from edgeproxy.engine.slot_wait import ENDING_SECS, LONGEST_SECS, MAX_WAITING

from edgeproxy.engine.native.session cimport WAITING, excuse_all, push


cdef class SlotQueue:
    """All clients that wait for a slot. Used on the gate thread only, except `count`.

    Attributes:
        count: How many wait.
        freed: How many tickets have ended, for as many of which no client was asked about.
        place, is_last: What the gate is asked with about the client that is to be asked about.
    """

    cdef object prepare(self, Workers workers):
        """Wait for sessions of these byte threads."""
        self._workers = workers
        self._places = {}  # by the number of the session
        self._most = MAX_WAITING
        self._ending_secs = ENDING_SECS
        self._longest_secs = LONGEST_SECS

    cdef bint is_full(self) noexcept nogil:
        """Return whether the next client is to be decided at once."""
        return self.count >= self._most

    cdef object add(self, Session* session, place, double now):
        """Let a client wait."""
        if self.count == 0:
            self._workers.await_ends(True)
        session.state = WAITING
        session.due_at = now + self._longest_secs
        if not self._has_asked:  # what came before it came before all clients of this turn
            self._has_asked = True
            self._turns_wanted = self._workers.ask_for_turns()
        session.turns_wanted = self._turns_wanted
        self.put_back(session, place)

    cdef Queue take_all(self) noexcept nogil:
        """Return all clients; `is_to_ask` says what to do with each."""
        cdef Queue line = self._line
        self._line.first = self._line.last = NULL
        self.count = 0
        self._has_asked = False
        return line

    cdef bint is_to_ask(self, Session* session, double now) except -1:
        """Return whether the gate is to be asked about a client that was taken, or put it back."""
        self.place = self._places.pop(session.number)
        self.is_last = session.due_at <= now or (
            self._workers.have_turned(session.turns_wanted)
            and now - self._workers.ending_at() >= self._ending_secs
        )
        if self.is_last:
            return True
        if self.freed <= 0:
            self.put_back(session, self.place)
            return False
        self.freed -= 1
        return True

    cdef object put_back(self, Session* session, place):
        """Let a client that was taken go on waiting."""
        self._places[session.number] = place
        push(&self._line, session)
        self.count += 1

    cdef object end_turn(self):
        """All clients that wait have been looked at."""
        self.freed = 0
        self.place = None
        if self.count == 0:
            self._workers.await_ends(False)

    cdef void excuse(self, double secs) noexcept nogil:
        """Let all wait longer by the seconds in which this process stood still."""
        excuse_all(&self._line, secs)
