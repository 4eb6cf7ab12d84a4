"""The engine in Cython; it is there where it could be built.

`engine.pyx` is the engine and meets Python; `acceptor`, `dialer`, `crew` and `roster` are the
gate thread's; `mail` is between the threads; `carrier` is a byte thread, `relay` carries;
`worker`, `session` and `kernel` are what all of it stands on. `system.pxd` is what C declares.
"""
