# cython: language_level=3, cdivision=True
"""Clients that wait for a slot; `engine/slot_wait` says for how long, and why.

The twin of `portable/ingress/slot_queue`. What came before a client has been read when every byte
thread has gone through one more turn (`Workers.ask_for_turns`).
"""

from edgeproxy.engine.slot_wait import ENDING_SECS, LONGEST_SECS, Shares
from edgeproxy.log import EventLog

from edgeproxy.engine.native.session cimport WAITING, excuse_all, push, take_first

log = EventLog("engine")


cdef class SlotQueue:
    """All clients that wait for a slot. Used on the gate thread only, except `count`.

    Attributes:
        count: How many wait.
        place, is_last: What the gate is asked with about the client that was taken out last.
    """

    cdef object prepare(self, Workers workers):
        """Wait for sessions of these byte threads."""
        self._workers = workers
        self._waits = {}  # by the number of the session
        self._shares = Shares()
        self._told_freed = set()
        self._ending_secs = ENDING_SECS
        self._longest_secs = LONGEST_SECS

    cdef bint has_room(self, wait) except -1:
        """Return whether this client may wait; else it is to be decided at once."""
        return self._shares.has_room(wait)

    cdef object add(self, Session* session, wait, double now):
        """Let a client wait."""
        if self.count == 0:
            self._workers.await_ends(True)
        session.state = WAITING
        session.due_at = now + self._longest_secs
        if not self._has_asked:  # what came before it came before all clients of this turn
            self._has_asked = True
            self._turns_wanted = self._workers.ask_for_turns()
        session.turns_wanted = self._turns_wanted
        self._put(session, wait)

    cdef object _put(self, Session* session, wait):
        self._shares.enter(wait)
        self._waits[session.number] = wait
        push(&self._line, session)
        self.count += 1

    cdef object note_end(self, gate, ticket):
        """A ticket is about to end: note whom that may help."""
        if self.count == 0:
            return
        try:
            self._told_freed.update(gate.frees(ticket))
        except Exception:
            log.bug("gate_failed", call="frees")

    cdef bint begin_turn(self) except -1:
        """Return whether anybody waits, whom `next_to_ask` then looks at."""
        self._unseen = self.count
        self._has_asked = False
        if self.count == 0:
            return False
        self._freed = self._shares.awaited(self._told_freed)
        self._has_freed = bool(self._freed)
        self._told_freed.clear()
        return True

    cdef Session* next_to_ask(self, double now) except? NULL:
        """Take out the next client that the gate is to be asked about; NULL: there is no other.

        If it still waits, it is put back with `put_back`.
        """
        cdef Session* session
        while self._unseen:
            session = self._line.first
            self.is_last = session.due_at <= now or (
                self._workers.have_turned(session.turns_wanted)
                and now - self._workers.ending_at() >= self._ending_secs
            )
            if not self.is_last and not self._has_freed:
                return NULL  # nor is it the last time for those who came later
            self._unseen -= 1
            take_first(&self._line)
            wait = self._waits[session.number]
            if self.is_last or wait.line in self._freed:
                del self._waits[session.number]
                self._shares.leave(wait)
                self.count -= 1
                self.place = wait.place
                return session
            push(&self._line, session)
        return NULL

    cdef object put_back(self, Session* session, wait):
        """The client that was taken out last goes on waiting, for this."""
        self._freed.discard(wait.line)
        self._put(session, wait)

    cdef object end_turn(self):
        """All clients that wait have been looked at."""
        self.place = None
        if self.count == 0:
            self._workers.await_ends(False)

    cdef void excuse(self, double secs) noexcept nogil:
        """Let all wait longer by the seconds in which this process stood still."""
        excuse_all(&self._line, secs)

    cdef Queue give_up_all(self):
        """Take out all clients."""
        cdef Queue line = self._line
        self._line.first = self._line.last = NULL
        self._waits.clear()
        self._shares = Shares()
        self.count = 0
        return line
