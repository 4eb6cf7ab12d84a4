"""See syscalls.pyx."""

from libc.stdint cimport uint64_t

# The marks of events on a thread's own descriptors; see `session.mark_of`.
cdef enum:
    WAKEUP = 1
    TIMER = 2

cdef double monotonic() noexcept nogil
cdef void ask_for_short_slices() noexcept nogil
cdef int open_timer(int epoll) noexcept nogil
cdef void arm(int timer, double at) noexcept nogil
cdef int open_wakeup(int epoll) noexcept nogil
cdef void wake(int fd) noexcept nogil
cdef void unwake(int fd) noexcept nogil
cdef void set_option(int fd, int level, int name, int value) noexcept nogil
cdef void reset_on_close(int fd) noexcept nogil
cdef void end_on_close(int fd) noexcept nogil
cdef int failure_of(int fd) noexcept nogil
cdef int undelivered_bytes(int fd) noexcept nogil
cdef int unread_bytes(int fd) noexcept nogil
cdef double unacked_since(int fd, double since, double now) noexcept nogil
cdef int is_gone(int fd) noexcept nogil
