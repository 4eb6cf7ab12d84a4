"""See session.pyx."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeproxy.engine.native.system cimport sockaddr_in6

# The events of both sockets of a session that is being carried.
cdef extern from *:
    """
    #include <sys/epoll.h>
    #define INTEREST ((uint32_t)(EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET))
    """
    uint32_t INTEREST

# The state of a session; see `engine/session_states`. A session is half closed while it is OPEN
# and one of its flows is DONE.
cdef enum:
    DIALING
    OPEN
    CLOSED
    PREREAD  # the first bytes of its client are read, before the gate is asked
    HANDSHAKING  # in a TLS handshake with its client, before the gate is asked, or its backend
    HANDSHAKEN  # after that, on its way back to the gate thread
    WAITING  # for a slot, after the gate was asked for the first time

# Why a session ended; `sessions.REASONS` has the words in this order.
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
    TLS_ERROR
    HANDSHAKE_FAILED
    HANDSHAKE_TIMEOUT

# Flags of a flow.
cdef enum:
    BLOCKED = 1  # the sink takes no more: what is waiting or piped goes first
    URGED = 2  # there is more than bytes: read until EAGAIN
    DONE = 4  # its end has been carried
    BULK = 8  # carried through a pipe
    QUEUED = 16  # in line for the next turn
    PROMPT = 32  # TCP_NODELAY is set on the sink
    SINK_WATCHED = 64  # the epoll reports when the sink takes more
    ENDING = 128  # the end of the source has arrived
    PARTING = 256  # the source's end has been read; the sink has no room for close_notify

# One direction of a session; upward is to the backend.
cdef struct Flow:
    Session* session
    Flow* reverse
    Flow* again_next
    char* waiting  # what the sink has not taken yet
    uint64_t carried
    double unacked_since
    int source
    int sink
    uint16_t flags
    uint16_t streak
    uint32_t waiting_at
    uint32_t waiting_size
    uint32_t piped
    int pipe_read
    int pipe_write

# What one end of a session needs to speak TLS; see tls/tls_end.pyx.
cdef struct TlsEnd:
    void* tls  # the SSL object, or NULL without TLS
    char* unsent  # records that the socket has not taken, or NULL
    const char* verify_error  # why its handshake failed, as OpenSSL says it; NULL if unknown
    uint32_t unsent_at
    uint32_t unsent_size
    int socket
    int code  # why nothing more can be read
    int failure  # why the socket takes nothing more, or 0
    uint32_t fed  # bytes received in a read without a byte for the session
    uint8_t is_dry  # the socket had less than was asked for
    uint8_t has_ended  # the socket has reached its end
    uint8_t said_end
    uint8_t is_shut  # we have shut its socket for writing

cdef struct Session:
    Flow upward
    Flow downward
    Session* previous  # in the queue that holds it
    Session* next
    uint32_t number
    uint32_t generation
    TlsEnd client_tls
    TlsEnd backend_tls
    PyObject* ticket  # the gate's; NULL before admission and after the end
    double started_at
    double active_at  # when its backend answered, then when something last happened
    double due_at  # deadline of its preread, handshake or dial, then time of its next check
    double began_at  # when its dial began, 0 if before it; then when its backend's first byte came
    double broken_since
    int client
    int backend
    int preconnected_fd  # its backend, if the dial was begun before (warm pool); else -1
    int listener
    int worker  # the number of its byte thread, or -1
    int code
    uint32_t turns_wanted  # see Workers.ask_for_turns
    uint32_t bytes_wanted  # bytes of its preamble, before the gate is asked again
    uint8_t state
    uint8_t reason
    uint8_t reset_by
    uint8_t ended_by  # CLIENT_RESET or BACKEND_RESET for its peer, where the reason does not tell
    uint8_t settled
    uint8_t watched
    uint8_t checked
    uint8_t quickack_off
    uint8_t meets_backend  # the handshake that it is in is with its backend
    uint8_t is_unwanted  # it ends after that handshake, whether this succeeds or not
    uint8_t read_ended  # its client sends no more of its preamble
    uint8_t watched_by_worker  # both its sockets are in the epoll of its byte thread
    sockaddr_in6 client_address
    sockaddr_in6 backend_address

cdef struct Queue:
    Session* first
    Session* last

cdef struct Pool:
    Session** slabs
    size_t slab_count
    Session* free

cdef int open_pool(Pool* pool) noexcept nogil
cdef Session* allocate(Pool* pool) noexcept nogil
cdef void release(Pool* pool, Session* session) noexcept nogil
cdef void close_pool(Pool* pool) noexcept nogil
cdef void push(Queue* line, Session* session) noexcept nogil
cdef Session* take_first(Queue* line) noexcept nogil
cdef void link(Queue* line, Session* session) noexcept nogil
cdef void unlink(Queue* line, Session* session) noexcept nogil
cdef void excuse_all(Queue* line, double secs) noexcept nogil
cdef uint32_t capacity(Pool* pool) noexcept nogil
cdef Session* session_at(Pool* pool, uint32_t number) noexcept nogil
cdef void wait_until_watched(Session* session) noexcept nogil
cdef uint64_t mark_of(Flow* flow) noexcept nogil
cdef Flow* marked(Pool* pool, uint64_t mark) noexcept nogil
