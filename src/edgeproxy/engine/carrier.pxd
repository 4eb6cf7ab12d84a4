"""The native engine's sessions and byte threads, as its two modules see them."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edgeproxy.engine.system cimport pthread_mutex_t, pthread_t, sockaddr_in6

# The same figures as in the portable engine, where they are explained.
cdef enum:
    BUFFER_BYTES = 65536
    READS_PER_TURN = 4
    BULK_READS = 8
    BULK_PER_TURN = 8
    CHATTY_READS = 8
    CHATTY_BYTES = 8192
    PIPE_BYTES = 262144
    MAX_POOLED = 32
    MAX_EVENTS = 512
    ACCEPTS_PER_TURN = 64
    SHORT_TICK_MS = 50
    TICK_MS = 1000
    LOOKS_PER_TIMEOUT = 6
    BROKEN_GRACE_SECS = 30
    PATIENCE_SECS = 10
    SLAB_SESSIONS = 128
    MAX_SLABS = 65536
    LOOKS_PER_TURN = 256
    TELL_MS = 20
    SLICE_NSECS = 100000
    SCHED_FLAG_KEEP_POLICY = 8

# The state of a session.
cdef enum:
    DIALING
    OPEN
    CLOSED

# Flags of a flow.
cdef enum:
    BLOCKED = 1
    URGED = 2
    DONE = 4
    BULK = 8
    QUEUED = 16
    PROMPT = 32
    SINK_WATCHED = 64
    ENDING = 128

# Why a session ended; `native.REASONS` has the words in this order.
cdef enum:
    NO_REASON
    FINISHED
    CLIENT_RESET
    BACKEND_RESET
    CLIENT_GONE
    IDLE
    TIMED_OUT
    ABORTED
    FAULT

# What events of a thread's own descriptors are marked with; see `mark_of`.
cdef enum:
    WAKEUP = 1
    TIMER = 2

cdef struct Flow:
    Session* session
    Flow* reverse
    Flow* again_next
    char* waiting
    uint64_t carried
    double owing_since
    int source
    int sink
    uint32_t flags
    uint32_t streak
    uint32_t waiting_at
    uint32_t waiting_size
    uint32_t piped
    int pipe_read
    int pipe_write

cdef struct Session:
    Flow upward
    Flow downward
    Session* previous
    Session* next
    uint32_t number
    uint32_t generation
    Session* gate_previous
    Session* gate_next
    PyObject* ticket
    Worker* worker
    double started_at
    double active_at
    double look_at
    double dialed_at
    double dial_secs
    double deadline
    double broken_since
    int client
    int backend
    int listener
    uint8_t state
    uint8_t reason
    uint8_t reset_by
    uint8_t settled
    uint8_t watched
    uint8_t looked_at
    uint8_t hushed
    uint8_t watched_by_worker
    int code
    sockaddr_in6 client_address
    sockaddr_in6 backend_address

cdef struct Line:
    Session* first
    Session* last

cdef struct Request:
    Session* session
    uint8_t reason

cdef struct Farewell:
    int client
    double deadline

cdef struct Ended:
    pthread_mutex_t lock
    Line line
    double told_at
    int wakeup

cdef struct Worker:
    pthread_t thread
    pthread_mutex_t lock
    Line arriving
    Request* requests
    size_t request_count
    size_t request_room
    Ended* ended
    Session** slabs
    Line looking
    Line settled
    Line finished
    Flow* again_first
    Flow* again_last
    size_t again_count
    char* buffer
    Farewell* farewells
    size_t farewell_count
    size_t farewell_room
    int[MAX_POOLED][2] pipes
    size_t pooled
    double now
    double next_tick
    double tell_at
    double pause_secs
    double idle_secs
    double user_secs
    int keepalive_idle_secs
    int keepalive_interval_secs
    int keepalive_probes
    int epoll
    int wakeup
    int timer
    uint8_t stopping
    long live
    int started
    int asked
    int ceiling


# The first version of `struct sched_attr` in linux/sched/types.h.
cdef struct Scheduling:
    uint32_t size
    uint32_t policy
    uint64_t flags
    int nice
    uint32_t priority
    uint64_t runtime
    uint64_t deadline
    uint64_t period


cdef double monotonic() noexcept nogil
cdef void ask_for_short_slices() noexcept nogil
cdef void append(Line* line, Session* session) noexcept nogil
cdef Session* take_first(Line* line) noexcept nogil
cdef void join(Line* line, Session* session) noexcept nogil
cdef void leave(Line* line, Session* session) noexcept nogil
cdef uint64_t mark_of(Flow* flow) noexcept nogil
cdef Flow* marked(Session** slabs, uint64_t mark) noexcept nogil
cdef void arm(int timer, double at) noexcept nogil
cdef int open_timer(int epoll) noexcept nogil
cdef void wake(int fd) noexcept nogil
cdef void unwake(int fd) noexcept nogil
cdef void set_option(int fd, int level, int name, int value) noexcept nogil
cdef void reset_on_close(int fd) noexcept nogil
cdef int failure_of(int fd) noexcept nogil
cdef int unread_bytes(int fd) noexcept nogil
cdef int start_worker(Worker* worker, Ended* ended, int number) noexcept nogil
cdef uint8_t carry_first(Session* session, char* buffer) noexcept nogil
cdef void hand_over(Worker* worker, Session* session) noexcept nogil
cdef void read_mail_soon(Worker* worker) noexcept nogil
cdef int ask(Worker* worker, Session* session, uint8_t reason) noexcept nogil
cdef void forget(Worker* worker, Session* session) noexcept nogil
cdef void stop_worker(Worker* worker) noexcept nogil
