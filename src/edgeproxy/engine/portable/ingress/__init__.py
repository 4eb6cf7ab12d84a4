"""From accept to the gate: what a client goes through before it is a session.

`ingress` drives an accepted client through `preread` (first bytes) and `handshake` (TLS).
"""
