# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The state of a byte thread: flows to pump again, pipes, lingering clients, and one timer.

The buffer for reading belongs to the thread; a session holds memory for bytes only while its
sink does not take them. The timer is set rarely: waiting for events sets none.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport realloc
from posix.unistd cimport close

from edgeproxy.engine.native.syscalls cimport arm, is_gone, reset_on_close, undelivered_bytes
from edgeproxy.engine.native.session cimport QUEUED, link
from edgeproxy.engine.native.system cimport *

cdef enum:
    PATIENCE_SECS = 10

cdef void again(Worker* worker, Flow* flow) noexcept nogil:
    """Let the flow be pumped in the next turn."""
    if flow.flags & QUEUED:
        return
    flow.flags |= QUEUED
    flow.again_next = NULL
    if worker.again_last == NULL:
        worker.again_first = flow
    else:
        worker.again_last.again_next = flow
    worker.again_last = flow
    worker.again_count += 1

cdef Flow* take_again(Worker* worker) noexcept nogil:
    cdef Flow* flow = worker.again_first
    if flow != NULL:
        worker.again_first = flow.again_next
        if worker.again_first == NULL:
            worker.again_last = NULL
        worker.again_count -= 1
        flow.flags &= ~<uint32_t>QUEUED
    return flow

cdef void check_later(Worker* worker, Session* session) noexcept nogil:
    session.settled = False
    session.due_at = worker.now + worker.pause_secs
    link(&worker.to_check, session)
    tick_by(worker, session.due_at)

cdef void tick_by(Worker* worker, double at) noexcept nogil:
    """Have `tick` called at this time, if not sooner."""
    if worker.next_tick == 0 or at < worker.next_tick:
        worker.next_tick = at
        arm(worker.timer, at)

# -- pipes: the twin of portable/pipe -----------------------------------------------------

cdef int borrow_pipe(Worker* worker, Flow* flow) noexcept nogil:
    cdef int[2] ends
    if worker.pooled:
        worker.pooled -= 1
        flow.pipe_read = worker.pipes[worker.pooled][0]
        flow.pipe_write = worker.pipes[worker.pooled][1]
        return True
    if pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
        return False
    if max(ends[0], ends[1]) >= worker.ceiling:
        close(ends[0])
        close(ends[1])
        return False
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES)
    flow.pipe_read = ends[0]
    flow.pipe_write = ends[1]
    return True

cdef void return_pipe(Worker* worker, Flow* flow) noexcept nogil:
    if flow.pipe_read < 0:
        return
    if not flow.piped and worker.pooled < MAX_POOLED:
        worker.pipes[worker.pooled][0] = flow.pipe_read
        worker.pipes[worker.pooled][1] = flow.pipe_write
        worker.pooled += 1
    else:
        close(flow.pipe_read)
        close(flow.pipe_write)
    flow.pipe_read = flow.pipe_write = -1
    flow.piped = 0

# -- lingering close: the twin of portable/lingering ------------------------------------

cdef int linger_close(Worker* worker, Session* session) noexcept nogil:
    """Keep a client until the kernel has delivered everything; see `engine/portable/lingering`."""
    cdef LingeringClient* more
    if not undelivered_bytes(session.client):
        return False
    if worker.lingering_count == worker.lingering_room:
        worker.lingering_room = worker.lingering_room * 2 + 16
        more = <LingeringClient*>realloc(worker.lingering, worker.lingering_room * sizeof(LingeringClient))
        if more == NULL:
            worker.lingering_room = worker.lingering_count
            return False
        worker.lingering = more
    epoll_ctl(worker.epoll, EPOLL_CTL_DEL, session.client, NULL)
    worker.lingering[worker.lingering_count].client = session.client
    worker.lingering[worker.lingering_count].deadline = worker.now + PATIENCE_SECS
    worker.lingering_count += 1
    tick_by(worker, worker.now + SHORT_TICK_MS / 1000.0)
    session.client = -1
    return True

cdef void close_lingered(Worker* worker) noexcept nogil:
    cdef size_t index = 0
    cdef int client
    while index < worker.lingering_count:
        client = worker.lingering[index].client
        if (
            worker.lingering[index].deadline <= worker.now
            or not undelivered_bytes(client)
            or is_gone(client)
        ):
            reset_on_close(client)
            close(client)
            worker.lingering_count -= 1
            worker.lingering[index] = worker.lingering[worker.lingering_count]
        else:
            index += 1
