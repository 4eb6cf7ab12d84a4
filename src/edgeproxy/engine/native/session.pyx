# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""A session of the native engine: one client, its backend, and a flow of bytes each way.

Who owns what. A session belongs to the gate thread until `handoff.hand_over`, to one byte thread
until `handoff.hand_back`, and then to the gate thread again, which reuses its memory. What another
thread reads of a session meanwhile, to list it, may be a moment old.

Sessions are never freed while the engine runs, and each has a number and a generation, which
grows with each use. An event names a session by these, not by its address: one that comes late,
for a socket that a child process still holds open, finds no session.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from edgeproxy.engine.native.system cimport __ATOMIC_ACQUIRE, __atomic_load_n, sched_yield

cdef enum:
    SLAB_SESSIONS = 128
    MAX_SLABS = 65536

# -- memory -----------------------------------------------------------------------------

cdef int open_pool(Pool* pool) noexcept nogil:
    """Prepare a pool, whose memory must be zero. Return False if memory is short."""
    pool.slabs = <Session**>calloc(MAX_SLABS, sizeof(Session*))
    return pool.slabs != NULL

cdef Session* allocate(Pool* pool) noexcept nogil:
    """Return a fresh session, or NULL if memory is short."""
    cdef Session* session
    cdef uint32_t number, generation
    if pool.free == NULL and not add_slab(pool):
        return NULL
    session = pool.free
    pool.free = session.next
    number = session.number
    generation = session.generation
    memset(session, 0, sizeof(Session))
    session.number = number
    session.generation = max(generation + 1, 1)  # 0 is none
    session.state = DIALING
    session.downward.flags = PROMPT  # the client inherits TCP_NODELAY from its listener
    session.backend = session.preconnected_fd = session.worker = -1
    session.upward.session = session.downward.session = session
    session.upward.reverse = &session.downward
    session.downward.reverse = &session.upward
    session.upward.pipe_read = session.upward.pipe_write = -1
    session.downward.pipe_read = session.downward.pipe_write = -1
    return session

cdef int add_slab(Pool* pool) noexcept nogil:
    cdef Session* slab
    cdef int index
    if pool.slab_count == MAX_SLABS:
        return False
    slab = <Session*>calloc(SLAB_SESSIONS, sizeof(Session))
    if slab == NULL:
        return False
    for index in range(SLAB_SESSIONS):
        slab[index].number = pool.slab_count * SLAB_SESSIONS + index
        slab[index].next = pool.free
        pool.free = &slab[index]
    pool.slabs[pool.slab_count] = slab
    pool.slab_count += 1
    return True

cdef void release(Pool* pool, Session* session) noexcept nogil:
    """Let the memory of a session be used again."""
    session.next = pool.free
    pool.free = session

cdef uint32_t capacity(Pool* pool) noexcept nogil:
    """Return how many sessions there is memory for; they are numbered from 0."""
    return pool.slab_count * SLAB_SESSIONS

cdef Session* session_at(Pool* pool, uint32_t number) noexcept nogil:
    return &pool.slabs[number // SLAB_SESSIONS][number % SLAB_SESSIONS]

cdef void close_pool(Pool* pool) noexcept nogil:
    """Free the memory of all sessions."""
    while pool.slab_count:
        pool.slab_count -= 1
        free(pool.slabs[pool.slab_count])
    free(pool.slabs)
    pool.slabs = NULL
    pool.free = NULL

# -- queues of sessions -----------------------------------------------------------------

cdef void push(Queue* line, Session* session) noexcept nogil:
    session.next = NULL
    if line.last == NULL:
        line.first = session
    else:
        line.last.next = session
    line.last = session

cdef Session* take_first(Queue* line) noexcept nogil:
    cdef Session* session = line.first
    if session != NULL:
        line.first = session.next
        if line.first == NULL:
            line.last = NULL
        session.next = NULL
    return session

cdef void link(Queue* line, Session* session) noexcept nogil:
    """Put a session at the end of a queue that it can leave from any place (`unlink`)."""
    session.previous = line.last
    push(line, session)

cdef void unlink(Queue* line, Session* session) noexcept nogil:
    if session.previous != NULL:
        session.previous.next = session.next
    else:
        line.first = session.next
    if session.next != NULL:
        session.next.previous = session.previous
    else:
        line.last = session.previous
    session.previous = session.next = NULL

cdef void excuse_all(Queue* line, double secs) noexcept nogil:
    """Move the deadlines of all sessions in a queue by this time."""
    cdef Session* session = line.first
    while session != NULL:
        session.due_at += secs
        session = session.next

# -- what events are about --------------------------------------------------------------

cdef uint64_t mark_of(Flow* flow) noexcept nogil:
    """Return the mark of events on the source of `flow`."""
    cdef Session* session = flow.session
    cdef uint64_t side = flow == &session.downward
    return <uint64_t>session.generation << 32 | <uint64_t>session.number << 1 | side

cdef Flow* marked(Pool* pool, uint64_t mark) noexcept nogil:
    """Return the flow that an event is about, or NULL if its session is no more."""
    cdef Session* session = session_at(pool, <uint32_t>mark >> 1)
    if session.generation != mark >> 32:
        return NULL
    return &session.downward if mark & 1 else &session.upward

cdef void wait_until_watched(Session* session) noexcept nogil:
    """Wait for the gate thread, which is about to put the second socket into the epoll.

    The first one may bring events before that.
    """
    while not __atomic_load_n(&session.watched_by_worker, __ATOMIC_ACQUIRE):
        sched_yield()
