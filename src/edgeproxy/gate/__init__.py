"""Connection rate: what the engine asks per connection; the only link between engine and core.

The engine knows no backend and `core` knows no socket. `gate` takes the engine's events, reads
preambles with `wire`, asks `core` for a decision, and answers with an address to dial.
"""
