"""What the native engine needs of Linux and POSIX, as C declares it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.time cimport timespec

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLOUT
        EPOLLPRI
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
    uint32_t EPOLLET

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initval, int flags)
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK

cdef extern from "<sys/timerfd.h>" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* wanted, itimerspec* before)
    enum:
        TFD_CLOEXEC
        TFD_NONBLOCK
        TFD_TIMER_ABSTIME

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long nfds, int timeout)
    enum:
        POLLOUT
        POLLERR
        POLLHUP

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t
    cdef struct sockaddr:
        sa_family_t sa_family
    cdef struct linger:
        int l_onoff
        int l_linger
    int socket(int domain, int type, int protocol)
    int accept4(int fd, sockaddr* address, socklen_t* length, int flags)
    int connect(int fd, const sockaddr* address, socklen_t length)
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t length)
    int getsockname(int fd, sockaddr* address, socklen_t* length)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* length)
    ssize_t recv(int fd, void* buffer, size_t length, int flags)
    ssize_t send(int fd, const void* buffer, size_t length, int flags)
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        SO_KEEPALIVE
        SO_LINGER
        SO_OOBINLINE
        SHUT_WR
        MSG_MORE
        MSG_PEEK
        MSG_NOSIGNAL
        MSG_TRUNC

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        sa_family_t sin_family
        unsigned short sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        sa_family_t sin6_family
        unsigned short sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    unsigned short htons(unsigned short value)
    unsigned short ntohs(unsigned short value)
    uint32_t ntohl(uint32_t value)
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY
        TCP_KEEPIDLE
        TCP_KEEPINTVL
        TCP_KEEPCNT
        TCP_CLOSE
        TCP_INFO
        TCP_QUICKACK

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)

cdef extern from "<fcntl.h>" nogil:
    ssize_t splice(int fd_in, void* off_in, int fd_out, void* off_out, size_t size, unsigned flags)
    int fcntl(int fd, int command, int argument)
    int pipe2(int* fds, int flags)
    enum:
        SPLICE_F_MOVE
        SPLICE_F_NONBLOCK
        F_SETPIPE_SZ
        O_NONBLOCK
        O_CLOEXEC

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, void* argument)
    enum:
        FIONREAD
        TIOCOUTQ

# Builtins of gcc and clang.
cdef extern from * nogil:
    uint8_t __atomic_load_n(uint8_t* at, int order)
    uint32_t load_number "__atomic_load_n"(uint32_t* at, int order)
    void __atomic_store_n(uint8_t* at, uint8_t value, int order)
    uint64_t load_time "__atomic_load_n"(uint64_t* at, int order)
    void store_time "__atomic_store_n"(uint64_t* at, uint64_t value, int order)
    void store_number "__atomic_store_n"(uint32_t* at, uint32_t value, int order)
    enum:
        __ATOMIC_ACQUIRE
        __ATOMIC_RELEASE

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<sys/resource.h>" nogil:
    int getpriority(int which, unsigned who)
    enum:
        PRIO_PROCESS

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_sched_setattr

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_create(
        pthread_t* thread,
        void* attributes,
        void* (*start)(void*) noexcept nogil,
        void* argument,
    )
    int pthread_join(pthread_t thread, void** result)
    pthread_t pthread_self()
    int pthread_setname_np(pthread_t thread, const char* name)
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
