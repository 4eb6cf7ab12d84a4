"""See worker.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edgeproxy.engine.native.session cimport Flow, Queue, Pool, Session
from edgeproxy.engine.native.system cimport pthread_mutex_t, pthread_t

# The same figures as in the portable engine, where they are explained.
cdef enum:
    BUFFER_BYTES = 65536
    PIPE_BYTES = 262144
    MAX_POOLED = 32
    MAX_EVENTS = 512
    SHORT_TICK_MS = 50
    TICK_MS = 1000

# A request of the gate thread to end a session that it does not own.
cdef struct Request:
    Session* session
    uint8_t reason

cdef struct LingeringClient:
    int client
    double deadline

# Sessions of all byte threads that have ended, for the gate thread.
cdef struct Ended:
    pthread_mutex_t lock
    Queue line
    double told_at
    int wakeup
    uint8_t awaited  # clients wait for sessions to end

cdef struct Worker:
    # Settings; durations are in seconds, and 0 is off.
    int number
    int ceiling
    double idle_secs
    double user_secs
    double late_secs
    int keepalive_idle_secs
    int keepalive_interval_secs
    int keepalive_probes
    Pool* pool
    Ended* ended
    # For the gate thread only.
    pthread_t thread
    int started
    int asked
    long live
    # Under `lock`.
    pthread_mutex_t lock
    Queue arriving
    Request* requests
    size_t request_count
    size_t request_room
    # For the byte thread only.
    Queue meeting
    Queue to_check
    Queue settled
    Queue finished
    Flow* again_first
    Flow* again_last
    size_t again_count
    char* buffer
    LingeringClient* lingering
    size_t lingering_count
    size_t lingering_room
    int[MAX_POOLED][2] pipes
    size_t pooled
    double now
    double next_tick  # when the timer goes off; 0: it is off
    double judged_at  # up to when deadlines are judged next; 0: none are
    double tell_at
    double pause_secs
    int epoll
    int timer
    # For both threads.
    int wakeup
    uint8_t stopping
    uint32_t turns_wanted  # by the gate thread
    uint32_t turns_done  # up to which of them everything that had come has been read
    uint64_t ending_at_usecs  # when a side of a session last ended

cdef void again(Worker* worker, Flow* flow) noexcept nogil
cdef Flow* take_again(Worker* worker) noexcept nogil
cdef void check_later(Worker* worker, Session* session) noexcept nogil
cdef void tick_by(Worker* worker, double at) noexcept nogil
cdef int borrow_pipe(Worker* worker, Flow* flow) noexcept nogil
cdef void return_pipe(Worker* worker, Flow* flow) noexcept nogil
cdef int linger_close(Worker* worker, Session* session) noexcept nogil
cdef void close_lingered(Worker* worker) noexcept nogil
