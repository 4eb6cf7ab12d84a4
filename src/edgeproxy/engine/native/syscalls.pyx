# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Wrappers of system calls: the clock, timers, wake-ups, socket options.

Nothing here knows a session. The checks for missing acknowledgements are the twin of
`portable/unacked`, where they are explained.
"""

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close, read, write

from edgeproxy.engine.native.system cimport *

cdef enum:
    SLICE_NSECS = 100000
    SCHED_FLAG_KEEP_POLICY = 8
    INFO_BYTES = 60

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

cdef double monotonic() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9

cdef void ask_for_short_slices() noexcept nogil:
    """Ask the scheduler for shorter time slices, so that this thread runs sooner when it wakes.

    It then does not wait until the slice of a computing thread ends, for instance of one that
    builds a table. Its share of the CPU stays the same. Needs Linux 6.12; earlier kernels
    ignore it.
    """
    cdef Scheduling wanted
    memset(&wanted, 0, sizeof(wanted))
    wanted.size = sizeof(wanted)
    wanted.flags = SCHED_FLAG_KEEP_POLICY
    wanted.nice = getpriority(PRIO_PROCESS, 0)
    wanted.runtime = SLICE_NSECS
    syscall(SYS_sched_setattr, 0, &wanted, 0)

# -- timers and wake-ups ---------------------------------------------------------------

cdef int open_timer(int epoll) noexcept nogil:
    """Return a timer whose events are marked `TIMER`, or -1."""
    cdef epoll_event event
    cdef int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    event.events = EPOLLIN | EPOLLET
    event.data.u64 = TIMER
    if timer >= 0 and epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) < 0:
        close(timer)
        return -1
    return timer

cdef void arm(int timer, double at) noexcept nogil:
    """Let a timer go off at this time of `monotonic`, once."""
    cdef itimerspec wanted
    wanted.it_interval.tv_sec = wanted.it_interval.tv_nsec = 0
    wanted.it_value.tv_sec = <long>at
    wanted.it_value.tv_nsec = <long>((at - <long>at) * 1e9)
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &wanted, NULL)

cdef int open_wakeup(int epoll) noexcept nogil:
    """Return an eventfd for `wake`, whose events are marked `WAKEUP`, or -1."""
    cdef epoll_event event
    cdef int wakeup = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    event.events = EPOLLIN
    event.data.u64 = WAKEUP
    if wakeup >= 0 and epoll_ctl(epoll, EPOLL_CTL_ADD, wakeup, &event) < 0:
        close(wakeup)
        return -1
    return wakeup

cdef void wake(int fd) noexcept nogil:
    cdef uint64_t one = 1
    write(fd, &one, sizeof(one))

cdef void unwake(int fd) noexcept nogil:
    cdef uint64_t count
    read(fd, &count, sizeof(count))

# -- sockets ----------------------------------------------------------------------------

cdef void set_option(int fd, int level, int name, int value) noexcept nogil:
    setsockopt(fd, level, name, &value, sizeof(value))

cdef void reset_on_close(int fd) noexcept nogil:
    cdef linger at_once
    at_once.l_onoff = 1
    at_once.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))

cdef void end_on_close(int fd) noexcept nogil:
    """Undo `reset_on_close`."""
    cdef linger never
    never.l_onoff = 0
    never.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &never, sizeof(never))

cdef int failure_of(int fd) noexcept nogil:
    """Return the pending error of a socket."""
    cdef int code = 0
    cdef socklen_t size = sizeof(code)
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0:
        return errno
    return code

cdef int undelivered_bytes(int fd) noexcept nogil:
    cdef int count = 0
    if ioctl(fd, TIOCOUTQ, &count) < 0:
        return 0
    return count

cdef int unread_bytes(int fd) noexcept nogil:
    cdef int count = 0
    if ioctl(fd, FIONREAD, &count) < 0:
        return 0
    return count

cdef double unacked_since(int fd, double since, double now) noexcept nogil:
    """See `engine/portable/unacked`, its twin."""
    cdef uint8_t[INFO_BYTES] raw
    cdef uint32_t unacked, since_ack_ms
    cdef double acknowledged_at
    if not read_info(fd, raw):
        return 0.0
    memcpy(&unacked, &raw[24], 4)
    memcpy(&since_ack_ms, &raw[56], 4)
    if unacked == 0 and raw[3] == 0:
        return 0.0
    acknowledged_at = now - since_ack_ms / 1000.0
    return since if since > 0 and acknowledged_at <= since else now

cdef int is_gone(int fd) noexcept nogil:
    """See `engine/portable/unacked`, its twin."""
    cdef uint8_t[INFO_BYTES] raw
    return read_info(fd, raw) and raw[0] == TCP_CLOSE

cdef int read_info(int fd, uint8_t* raw) noexcept nogil:
    """Read the first INFO_BYTES of `struct tcp_info`. Return whether the kernel gave them all."""
    cdef socklen_t size = INFO_BYTES
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, raw, &size) == 0 and size == INFO_BYTES
