"""The agent, a process of its own, that keeps the routing table of this POP equal to all others.

A bridge carries edits between the routing database, which anybody may write, and an engine, which
carries them between POPs. The decisions are in `core/cluster`.
"""
