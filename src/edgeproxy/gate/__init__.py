"""Connection rate: what the engine asks for each connection, and the only room between the two.

The engine knows no backend and `core` knows no socket. `gate` takes the engine's events, reads
preambles with `wire`, asks `core` for a decision, and answers with an address to dial.
"""
