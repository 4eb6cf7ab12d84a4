"""From accept to the gate: what a client goes through before it is a session.

`ingress` drives an accepted client through `preread` (first bytes) and `handshake` (TLS). Each of
them returns what comes next for the client (`accepted.Next`), and the engine does it.
"""
