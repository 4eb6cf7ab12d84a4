# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""All byte threads of an engine: gives them sessions, asks for their end, takes the ended ones.

Used on the gate thread only, except `lingering`, which any thread may call.
"""

import os

from edgeproxy.engine.sockets import (
    KEEPALIVE_IDLE_SECS,
    KEEPALIVE_INTERVAL_SECS,
    KEEPALIVE_PROBES,
)
from edgeproxy.errors import EdgeProxyError
from edgeproxy.standstill import LATE_SECS

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from edgeproxy.engine.native.byte_thread.loop cimport start_worker, stop_worker
from edgeproxy.engine.native.byte_thread.handoff cimport (
    ask,
    forget,
    hand_over,
    hand_over_handshake,
    wake_for_handoff,
)
from edgeproxy.engine.native.session cimport ABORTED
from edgeproxy.engine.native.syscalls cimport wake
from edgeproxy.engine.native.system cimport *


cdef class Workers:
    """The byte threads of one engine."""

    cdef object prepare(self, settings, Pool* pool, int wakeup):
        """Prepare the byte threads. `wakeup` is the descriptor that wakes the gate thread."""
        cdef Worker* worker
        cdef int index
        pthread_mutex_init(&self._ended.lock, NULL)
        self._ended.wakeup = wakeup
        wanted = settings.byte_threads or len(os.sched_getaffinity(0))
        self._workers = <Worker*>calloc(wanted, sizeof(Worker))
        if self._workers == NULL:
            raise MemoryError
        self._count = wanted
        for index in range(self._count):
            worker = &self._workers[index]
            worker.number = index
            worker.epoll = worker.wakeup = worker.timer = -1
            worker.pool = pool
            worker.keepalive_idle_secs = KEEPALIVE_IDLE_SECS
            worker.keepalive_interval_secs = KEEPALIVE_INTERVAL_SECS
            worker.keepalive_probes = KEEPALIVE_PROBES
            worker.idle_secs = settings.idle_timeout_secs
            worker.user_secs = settings.user_timeout_secs
            worker.late_secs = LATE_SECS

    cdef object start(self, int ceiling):
        """Start the byte threads; their pipes stay below `ceiling` (`engine.descriptors`).

        Raises EdgeProxyError.
        """
        cdef int index, code
        for index in range(self._count):
            self._workers[index].ceiling = ceiling
            code = start_worker(&self._workers[index], &self._ended)
            if code:
                raise EdgeProxyError(
                    f"a byte thread cannot be started: {os.strerror(code)}; raise the limit of "
                    "open files (ulimit -n), or lower EDGEPROXY_BYTE_THREADS"
                )

    cdef void give(self, Session* session) noexcept nogil:
        """Hand a session, now that its backend has answered, to the thread with the fewest."""
        hand_over(self._choose(), session)

    cdef void meet(self, Session* session) noexcept nogil:
        """Hand a session to the thread with the fewest sessions, for a handshake."""
        hand_over_handshake(self._choose(), session)

    cdef Worker* _choose(self) noexcept nogil:
        cdef Worker* worker = &self._workers[0]
        cdef int index
        for index in range(1, self._count):
            if self._workers[index].live < worker.live:
                worker = &self._workers[index]
        worker.live += 1
        return worker

    cdef void take_back(self, Session* session) noexcept nogil:
        """A session has ended: its byte thread forgets it."""
        cdef Worker* worker = &self._workers[session.worker]
        worker.live -= 1
        forget(worker, session)

    cdef Queue take_ended(self) noexcept nogil:
        """Return the sessions that have ended since the last time."""
        cdef Queue ended
        pthread_mutex_lock(&self._ended.lock)
        ended = self._ended.line
        self._ended.line.first = self._ended.line.last = NULL
        pthread_mutex_unlock(&self._ended.lock)
        return ended

    cdef void await_ends(self, bint awaited) noexcept nogil:
        """Wake the gate thread for every session that ends, or no more than otherwise."""
        pthread_mutex_lock(&self._ended.lock)
        self._ended.awaited = awaited
        pthread_mutex_unlock(&self._ended.lock)

    cdef uint32_t ask_for_turns(self) noexcept nogil:
        """Have every thread read what has come until now. Return a number for `have_turned`.

        The gate thread is woken when each has done so.
        """
        cdef int index
        self._turns_wanted += 1
        for index in range(self._count):
            if self._workers[index].started:
                store_number(
                    &self._workers[index].turns_wanted, self._turns_wanted, __ATOMIC_RELEASE
                )
                wake(self._workers[index].wakeup)
        return self._turns_wanted

    cdef bint have_turned(self, uint32_t wanted) noexcept nogil:
        """Return whether every thread has read what had come, and handed over what ended."""
        cdef int index
        cdef uint32_t done
        for index in range(self._count):
            if self._workers[index].started:
                done = load_number(&self._workers[index].turns_done, __ATOMIC_ACQUIRE)
                if <int32_t>(done - wanted) < 0:
                    return False
        return True

    cdef double ending_at(self) noexcept nogil:
        """Return when a side of a session last ended, as far as `have_turned` makes it known."""
        cdef int index
        cdef uint64_t latest = 0
        for index in range(self._count):
            latest = max(
                latest, load_time(&self._workers[index].ending_at_usecs, __ATOMIC_ACQUIRE)
            )
        return latest / 1e6

    cdef void ask_to_end(self, Session* session) noexcept nogil:
        """Ask the thread of a session to end it; nothing happens if that thread has ended."""
        if self._workers[session.worker].started:
            ask(&self._workers[session.worker], session, ABORTED)

    cdef void remind(self) noexcept nogil:
        """Wake the threads that have not taken their new sessions yet."""
        cdef int index
        for index in range(self._count):
            wake_for_handoff(&self._workers[index])

    cdef long lingering(self) noexcept nogil:
        """Return how many clients are being sent their last bytes."""
        cdef int index
        cdef long count = 0
        for index in range(self._count):
            count += self._workers[index].lingering_count
        return count

    cdef void stop(self) noexcept nogil:
        """End all threads and their sessions."""
        cdef int index
        for index in range(self._count):
            stop_worker(&self._workers[index])

    cdef void let_go(self) noexcept nogil:
        """Free the memory of threads that have ended."""
        self._count = 0
        free(self._workers)
        self._workers = NULL
        pthread_mutex_destroy(&self._ended.lock)
