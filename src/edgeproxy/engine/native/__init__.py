"""The engine in Cython; present where it could be built.

`engine.pyx` is the engine and meets Python. `gate_thread/` accepts, prereads, dials and asks the
gate. `byte_thread/` shakes hands and carries bytes without the GIL; `byte_thread/handoff` is the
way between the two. `tls/` stands between it and OpenSSL; its `stub_` modules replace it in builds
without OpenSSL. all of it uses `session` and `syscalls`; `system.pxd` is what C
declares.
"""
