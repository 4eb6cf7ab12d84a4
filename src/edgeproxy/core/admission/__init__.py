"""Whether a client may enter, and which backend it gets: the decision itself.

`admission` is the pipeline: access, affinity, origin, tiers, choice, reservation. It runs at
connection rate on the gate thread, which alone calls it, so nothing here needs a lock.
`explanation` asks the same code what it would do.
"""
