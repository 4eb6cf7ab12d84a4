"""What makes the routing table the same on every POP, as pure decisions.

Time, randomness and bytes are arguments. `cluster/` does the I/O.
"""
