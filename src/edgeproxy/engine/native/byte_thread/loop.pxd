"""See loop.pyx."""

from edgeproxy.engine.native.byte_thread.worker cimport Ended, Worker

cdef int start_worker(Worker* worker, Ended* ended) noexcept nogil
cdef void stop_worker(Worker* worker) noexcept nogil
