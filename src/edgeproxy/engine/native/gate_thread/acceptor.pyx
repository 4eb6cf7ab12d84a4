# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Accepts clients from listening sockets, survives every error of `accept`, and turns clients away.

The twin of `engine/portable/acceptor`, where it is explained.
"""

import os

from edgeproxy.engine.portable.acceptor import CALM_SECS
from edgeproxy.engine.descriptors import room_below
from edgeproxy.engine.listener import LOCAL, client_at
from edgeproxy.log import EventLog

from libc.errno cimport EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.unistd cimport close as close_descriptor

from edgeproxy.engine.native.session cimport Session, allocate, push, release
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.tls.tls_end cimport end_tls, tls_say_end

log = EventLog("engine")

cdef enum:
    ACCEPTS_PER_TURN = 64
    SINGLES = 4
    # The same figures as in `portable/sessions`, where they are explained.
    DRAINED_BYTES = 65536
    DRAINED_BYTES_PER_TURN = 1048576


cdef class Acceptor:
    """The listening sockets of an engine. Used on the gate thread only.

    Attributes:
        opened: Clients that have been accepted and that the ingress has not taken yet.
        paused: Accepting waits for descriptors.
        undialed: The number of accepted clients whose backends have no descriptor yet.
        ceiling: See `engine.descriptors`.
    """

    cdef object prepare(self, Pool* pool, int epoll):
        """Take sessions from this pool, and watch listeners with this epoll."""
        self._pool = pool
        self._epoll = epoll
        self._listeners = []

    cdef object add(self, listener):
        """Accept from this listener; the acceptor closes it.

        A slot is reused after its listener is closed. A place in the list is never reused,
        because clients before admission refer to their listener by it.
        """
        cdef int slot = 0
        while slot < self._count and self._listening[slot] >= 0:
            slot += 1
        if slot == self._room:
            self._make_room()
        self._listening[slot] = listener.listening.fileno()
        self._places[slot] = len(self._listeners)
        self._listeners.append(listener)
        self._count = max(self._count, slot + 1)
        if not self.paused and not self._watch(slot):
            self.pause(errno)

    cdef object _make_room(self):
        cdef int room = self._room * 2 + 16
        cdef int* listening = <int*>realloc(self._listening, room * sizeof(int))
        cdef int* places
        if listening == NULL:
            raise MemoryError
        self._listening = listening
        places = <int*>realloc(self._places, room * sizeof(int))
        if places == NULL:
            raise MemoryError
        self._places = places
        self._room = room

    def __dealloc__(self):
        free(self._listening)
        free(self._places)

    cdef object remove(self, name, double now):
        """Accept the clients that have connected to this listener already, then close it."""
        cdef int slot
        for slot in range(self._count):
            if self._listening[slot] >= 0 and self.listener_at(self._places[slot]).name == name:
                with nogil:
                    self._accept(slot, 1 << 16, now)
                self._close(slot)

    cdef void turn_away(self, Session* session, double now) noexcept nogil:
        """Close a client without sending a byte, and release its session."""
        cdef ssize_t size
        if self._drained_at != now:
            self._drained_at = now
            self._drained = 0
        if session.client_tls.tls != NULL:
            tls_say_end(&session.client_tls)
            end_tls(&session.client_tls)
        shutdown(session.client, SHUT_WR)
        if self._drained < DRAINED_BYTES_PER_TURN:
            size = recv(session.client, NULL, DRAINED_BYTES, MSG_TRUNC)  # nothing is copied
            self._drained += max(size, 0)
        close_descriptor(session.client)
        release(self._pool, session)

    cdef object renew(self, name, settings, tls):
        """Speak TLS with new clients of a listener with these settings, if it exists."""
        for listener in self._listeners:
            if listener.name == name:
                listener.renew(settings, tls)

    cdef object listener_at(self, int place):
        """Return the listener of a client; `Session.listener` is its place."""
        return self._listeners[place]

    cdef bint _watch(self, int listener) noexcept nogil:
        """Watch a listener. Return whether the epoll has room for it."""
        cdef epoll_event event
        if self._listening[listener] < 0:
            return True
        event.events = EPOLLIN
        event.data.u64 = FIRST_LISTENER + listener
        return epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._listening[listener], &event) == 0

    cdef void accept(self, int listener, double now) noexcept nogil:
        """Accept the clients that wait.

        After a turn with one client, the next few turns accept only one each: an `accept` that
        finds no client costs time, too, and a client that still waits brings another event.
        """
        if listener >= self._count or self._listening[listener] < 0:  # closed since that event
            return
        if self._singles:
            self._singles -= 1
            self._accept(listener, 1, now)
        elif self._accept(listener, ACCEPTS_PER_TURN, now) == 1:
            self._singles = SINGLES

    cdef int _accept(self, int listener, int limit, double now) noexcept nogil:
        """Accept up to `limit` clients. Return how many there were."""
        cdef int accepted = 0
        cdef Session* session
        cdef socklen_t size
        cdef int fd
        while accepted < limit and not self.paused:
            session = allocate(self._pool)
            if session == NULL:
                self.pause(ENOMEM)
                return accepted
            size = sizeof(session.client_address)
            fd = accept4(
                self._listening[listener], <sockaddr*>&session.client_address, &size,
                SOCK_NONBLOCK | SOCK_CLOEXEC,
            )
            if fd < 0:
                release(self._pool, session)
                if errno == EAGAIN:
                    return accepted
                if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                    self.pause(errno)
                    return accepted
                accepted += 1  # one that has already gone
                continue
            accepted += 1
            session.client = session.upward.source = session.downward.sink = fd
            session.listener = self._places[listener]
            session.started_at = now
            push(&self.opened, session)
            self.undialed += 1
            if fd + self.undialed >= self.ceiling:  # each needs another one, for its backend
                self.pause(EMFILE)
        return accepted

    cdef void pause(self, int code) noexcept nogil:
        """Stop accepting until `resume`."""
        cdef int listener
        if self.paused:
            return
        self.paused = True
        self._code = code
        for listener in range(self._count):
            if self._listening[listener] >= 0:
                epoll_ctl(self._epoll, EPOLL_CTL_DEL, self._listening[listener], NULL)

    cdef object tell_pause(self):
        """Log that accepting has paused, once per episode."""
        if not self._code:
            return
        code, self._code = self._code, 0
        if not self._told:
            self._told = True
            log.warning(
                "accept_paused",
                reason=os.strerror(code),
                hint="raise the limit of open files (ulimit -n, LimitNOFILE)",
            )

    cdef object resume(self, double now):
        """Accept again, if that was paused and there are descriptors now."""
        cdef int listener
        if self.paused:
            if not room_below(self.ceiling):
                return
            self.paused = False
            self._resumed_at = now
            for listener in range(self._count):
                if not self._watch(listener):
                    self.pause(errno)
                    return
        elif self._told and now - self._resumed_at >= CALM_SECS:
            self._told = False
            log.info("accept_resumed")

    cdef object accept_rest(self, double now):
        """Accept the clients that have connected already, then close the listeners."""
        cdef int slot
        for slot in range(self._count):
            if self._listening[slot] >= 0:
                with nogil:
                    self._accept(slot, 1 << 16, now)
        self.close()

    cdef object close(self):
        """Close the listeners. Idempotent."""
        cdef int slot
        for slot in range(self._count):
            if self._listening[slot] >= 0:
                self._close(slot)

    cdef object _close(self, int slot):
        # A child process may hold the socket open: closing it here would not end its events.
        epoll_ctl(self._epoll, EPOLL_CTL_DEL, self._listening[slot], NULL)
        self._listening[slot] = -1
        self.listener_at(self._places[slot]).listening.close()


cdef object client_of(Session* session, listener):
    """Return the `Client` that has connected to this listener."""
    local = local_address_of(session.client) if listener.settings.tells_local else None
    return client_at(address_of(&session.client_address), listener.name, local)


cdef object address_of(sockaddr_in6* address):
    """Return an address as `socket` gives it; that of this host for a Unix socket."""
    cdef sockaddr_in* four = <sockaddr_in*>address
    cdef char[64] text
    if address.sin6_family == AF_UNIX:
        return LOCAL
    if address.sin6_family == AF_INET:
        inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text))
        return (text.decode("ascii"), ntohs(four.sin_port))
    inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof(text))
    return (
        text.decode("ascii"),
        ntohs(address.sin6_port),
        ntohl(address.sin6_flowinfo),
        address.sin6_scope_id,
    )


cdef object local_address_of(int fd):
    """Return the address of this end of a connection, as `socket` gives it."""
    cdef sockaddr_in6 address
    cdef socklen_t size = sizeof(address)
    memset(&address, 0, sizeof(address))
    if getsockname(fd, <sockaddr*>&address, &size) < 0:
        return None
    return address_of(&address)
