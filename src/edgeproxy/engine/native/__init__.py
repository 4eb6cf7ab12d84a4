"""The engine in Cython; it is there where it could be built.

`engine.pyx` is the engine and meets Python; `acceptor`, `hearing`, `dialer`, `first`, `crew` and
`roster` are the gate thread's; `mail` is between the threads; `carrier` is a byte thread,
`welcome` shakes hands there and `relay` carries; `tls`, `tls_context` and `certificates` stand
between it and OpenSSL, and the `no_` ones in their place without it; `worker`, `session` and
`kernel` are what all of it stands on. `system.pxd` is what C declares.
"""
